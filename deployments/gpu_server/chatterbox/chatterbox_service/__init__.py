"""Chatterbox behind HTTP: text in, speech out, in a voice that a short recording gives. One generation at a time.

Nothing but `model` imports torch or the model's package, and it does so when the model is loaded.
"""
