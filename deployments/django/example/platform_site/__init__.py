"""An example of a platform that uses the app."""
