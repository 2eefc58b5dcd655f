// The review page: lines to read, hear and change. What differs from what the run asked is sent as the field `edits`.
"use strict";

(() => {
    const { lines, words, given } = JSON.parse(document.getElementById("cd-data").textContent);
    const form = document.getElementById("cd-review");
    const list = document.getElementById("cd-lines");
    const players = { original: document.getElementById("cd-original"), dubbed: document.getElementById("cd-dubbed") };
    const trouble = document.getElementById("cd-trouble");
    const rows = [];
    let current = 0;
    let playing = null; // {player, end, row}
    let leaving = false;

    const make = (kind, className, text) => {
        const node = document.createElement(kind);
        if (className) node.className = className;
        if (text !== undefined) node.textContent = text;
        return node;
    };
    const clock = (seconds) => {
        const whole = Math.max(0, Math.floor(seconds));
        const two = (n) => String(n).padStart(2, "0");
        const hours = Math.floor(whole / 3600);
        return `${hours ? `${hours}:` : ""}${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
    };
    const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
    const one = (text) => text.split(/\s+/).filter(Boolean).join(" ");

    // --- Changes

    function edit(row) {
        const found = { line: row.line.id };
        const text = one(row.text.value);
        if (text !== row.line.translation) found.text = text;
        const voice = row.voice.value.trim();
        if (voice !== row.line.voice) found.voice = voice;
        if (row.silent.checked !== row.line.silent) found.silent = row.silent.checked;
        return Object.keys(found).length > 1 ? found : null;
    }

    const edits = () => rows.map(edit).filter(Boolean);

    function changed(row) {
        row.node.classList.toggle("cd-changed", edit(row) !== null);
        row.node.classList.toggle("cd-silent", row.silent.checked);
        row.undo.hidden = edit(row) === null;
        grow(row.text);
        count();
    }

    function count() {
        const number = edits().length;
        document.getElementById("cd-count").textContent = number ? words.changed.replace("%d", number) : words.none_changed;
        document.getElementById("cd-approve").textContent = number ? words.approve_changes.replace("%d", number) : words.approve;
        return number;
    }

    const grow = (area) => {
        area.style.height = "auto";
        area.style.height = `${area.scrollHeight + 2}px`;
    };

    function build(line, index) {
        const node = make("article", `cd-line${line.flags.length ? " cd-flagged" : ""}`);
        node.tabIndex = -1;
        node.dataset.line = line.id;
        const when = make("div", "cd-when");
        when.append(make("time", "", clock(line.start)));
        if (line.speaker) when.append(make("span", "cd-quiet", line.speaker));
        for (const [name, sign] of [["original", "▶"], ["dubbed", "▷"]]) {
            if (!players[name]) continue;
            const button = make("button", `cd-play cd-play-${name}`, sign);
            button.type = "button";
            button.title = words[name];
            button.setAttribute("aria-label", words[name]);
            button.addEventListener("click", () => { choose(index); play(name); });
            when.append(button);
        }
        const source = make("p", "cd-source", line.source);
        const text = make("textarea", "cd-text");
        text.value = line.translation;
        text.rows = 1;
        text.maxLength = 2000;
        text.lang = document.documentElement.lang;
        text.setAttribute("aria-label", words.translation.replace("%s", clock(line.start)));
        const more = make("div", "cd-more");
        const voice = make("input", "cd-voice");
        voice.value = line.voice;
        voice.placeholder = words.voice;
        voice.setAttribute("aria-label", words.voice);
        voice.setAttribute("list", "cd-voices");
        voice.maxLength = 100;
        const label = make("label", "cd-silence");
        const silent = make("input");
        silent.type = "checkbox";
        silent.checked = line.silent;
        label.append(silent, words.silent);
        const undo = make("button", "cd-undo", "↺");
        undo.type = "button";
        undo.title = words.undo;
        undo.setAttribute("aria-label", words.undo);
        more.append(voice, label, undo);
        const flags = make("p", "cd-flags");
        for (const flag of line.flags) flags.append(make("span", "cd-flag", flag));
        const right = make("div", "cd-right");
        right.append(text, flags);
        if (line.heard && plain(line.heard) !== plain(line.translation)) right.append(make("p", "cd-heard cd-quiet", words.heard.replace("%s", line.heard)));
        node.append(when, source, right, more);
        const row = { line, node, text, voice, silent, undo };
        undo.addEventListener("click", () => {
            text.value = line.translation;
            voice.value = line.voice;
            silent.checked = line.silent;
            changed(row);
        });
        for (const input of [text, voice, silent]) input.addEventListener("input", () => changed(row));
        node.addEventListener("focusin", () => choose(index, false));
        text.addEventListener("keydown", (event) => {
            if (event.key === "Enter") event.preventDefault(); // a line is one line
        });
        rows.push(row);
        return node;
    }

    // --- Moving about, and hearing

    function choose(index, focus = true) {
        rows[current]?.node.classList.remove("cd-current");
        current = Math.min(rows.length - 1, Math.max(0, index));
        const row = rows[current];
        if (!row) return;
        row.node.classList.add("cd-current");
        if (focus) row.node.focus({ preventScroll: true });
        if (focus) row.node.scrollIntoView({ block: "nearest" });
    }

    function step(by) {
        for (let index = current + by; index >= 0 && index < rows.length; index += by) {
            if (!rows[index].node.hidden) return choose(index);
        }
        return undefined;
    }

    function nextFlagged() {
        const found = rows.findIndex((row, index) => index > current && row.line.flags.length);
        choose(found >= 0 ? found : Math.max(0, rows.findIndex((row) => row.line.flags.length)));
    }

    async function play(name) {
        const player = players[name];
        const row = rows[current];
        if (!player || !row) return;
        for (const other of Object.values(players)) if (other && other !== player) other.pause();
        if (playing?.player === player && playing.row === row && !player.paused) return void player.pause();
        player.currentTime = row.line.start;
        playing = { player, row, end: row.line.end };
        try {
            await player.play();
        } catch (error) {
            if (error.name !== "AbortError") say(words.unplayable);
        }
    }

    function say(text) {
        trouble.textContent = text;
        trouble.hidden = !text;
    }

    for (const player of Object.values(players)) {
        player?.addEventListener("timeupdate", () => {
            if (playing?.player === player && player.currentTime >= playing.end + 0.15) {
                player.pause();
                playing = null;
            }
        });
        player?.addEventListener("error", () => say(words.unplayable));
    }

    document.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const typing = event.target.closest("textarea, input, select, button, a");
        if (typing) {
            if (event.key === "Escape" && typing.closest(".cd-line")) choose(current);
            return;
        }
        const row = rows[current];
        const keys = {
            ArrowDown: () => step(1),
            j: () => step(1),
            ArrowUp: () => step(-1),
            k: () => step(-1),
            n: nextFlagged,
            o: () => play("original"),
            d: () => play("dubbed"),
            e: () => row?.text.focus(),
            Enter: () => row?.text.focus(),
        };
        if (keys[event.key]) {
            event.preventDefault();
            keys[event.key]();
        }
    });

    // --- Deciding

    document.getElementById("cd-reject").addEventListener("click", () => {
        document.getElementById("cd-reason").hidden = false;
        document.getElementById("cd-why").focus();
    });
    document.getElementById("cd-flagged")?.addEventListener("change", (event) => {
        for (const row of rows) row.node.hidden = event.target.checked && !row.line.flags.length;
        for (const row of rows) if (!row.node.hidden) grow(row.text);
    });
    form.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && event.target.matches("input")) event.preventDefault(); // nothing is approved by accident
    });
    form.addEventListener("submit", (event) => {
        if (event.submitter?.value === "reject" && !document.getElementById("cd-why").value.trim()) {
            event.preventDefault();
            return say(words.reason);
        }
        form.elements.edits.value = JSON.stringify(edits());
        leaving = true;
        return undefined;
    });
    window.addEventListener("beforeunload", (event) => {
        if (!leaving && edits().length) {
            event.preventDefault();
            event.returnValue = words.lost;
        }
    });

    list.append(...lines.map(build));
    for (const kept of Array.isArray(given) ? given : []) {
        const row = rows.find((candidate) => candidate.line.id === kept?.line);
        if (!row) continue;
        if (typeof kept.text === "string") row.text.value = kept.text;
        if (typeof kept.voice === "string") row.voice.value = kept.voice;
        if (typeof kept.silent === "boolean") row.silent.checked = kept.silent;
    }
    rows.forEach(changed);
    choose(0);
})();
