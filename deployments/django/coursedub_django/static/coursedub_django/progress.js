// Keeps jobs that are shown up to date: a job's own page, and the list of jobs.
"use strict";

(() => {
    const EVERY = 4000; // ms
    const page = document.getElementById("cd-job");
    const one = (within, name) => within.querySelector(`[data-cd-${name}]`);

    function show(within, job) {
        const bar = one(within, "share");
        if (bar) bar.value = job.share;
        for (const name of ["eta", "cost", "stage"]) {
            const place = one(within, name);
            if (place) place.textContent = job[name];
        }
        const percent = one(within, "percent");
        if (percent) percent.textContent = `${Math.round(100 * job.share)} %`;
    }

    function showStages(list, stages) {
        if (!list || !stages.length) return;
        list.replaceChildren(...stages.map((stage) => {
            const item = document.createElement("li");
            item.className = `cd-stage-${stage.state}`;
            const name = document.createElement("span");
            name.textContent = stage.name;
            const bar = document.createElement("progress");
            bar.max = 1;
            bar.value = stage.share;
            const label = document.createElement("span");
            label.className = "cd-quiet";
            label.textContent = stage.label;
            item.append(name, bar, label);
            return item;
        }));
    }

    async function ask(address) {
        const answer = await fetch(address, { headers: { Accept: "application/json" }, credentials: "same-origin" });
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.json();
    }

    async function followPage() {
        const found = await ask(page.dataset.progress);
        const [job] = found.jobs;
        if (!job || job.state !== page.dataset.state) return location.reload(); // other buttons, other facts
        show(page, job);
        showStages(one(page, "stages"), job.stages);
        const problem = one(page, "problem");
        problem.textContent = found.problem;
        problem.hidden = !found.problem;
        return undefined;
    }

    const badges = () => [...document.querySelectorAll("#result_list [data-cd-job]:not([data-cd-keep])")];
    const isActive = (badge) => /^(starting|queued|running|review|completed publishing)/.test(badge.dataset.cdState);

    async function followList() {
        const active = badges().filter(isActive);
        if (!active.length) return;
        const query = active.map((badge) => `job=${badge.dataset.cdJob}`).join("&");
        const found = await ask(`progress/?${query}`);
        for (const job of found.jobs) {
            const badge = active.find((candidate) => candidate.dataset.cdJob === job.id);
            badge.dataset.cdState = job.state;
            badge.textContent = job.label;
            badge.className = `cd-badge cd-${job.kind}`;
            show(badge.closest("tr"), job);
        }
    }

    function follow(step) {
        const again = async () => {
            if (!document.hidden) await step().catch(() => undefined); // the next time it may work
            setTimeout(again, EVERY);
        };
        setTimeout(again, EVERY / 2);
    }

    if (page && "active" in page.dataset) follow(followPage);
    else if (!page && document.getElementById("result_list")) follow(followList);
    if (page) {
        const bar = one(page, "share");
        if (bar) one(page, "percent").textContent = `${Math.round(100 * bar.value)} %`;
    }
})();
