// The rows of the jobs table. Only those near the screen exist; two spacers stand for the rest.
import { ago, describe, h, metric, words, duration, when } from "./dom.js";

const BEYOND = 12; // rows that are kept ready above and below the screen
const SHOWN = ["val_accuracy", "train_loss", "frechet_distance", "g_loss", "d_loss"];

export const isOver = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

// One row; `update` writes what has changed and leaves the rest alone, so that nothing loses its focus.
class Row {
  constructor(id, table) {
    this.choose = h("input", { type: "checkbox", onclick: (event) => table.onchoose(id, event.shiftKey) });
    this.name = h("a", { class: "name" });
    this.about = h("div", { class: "about" });
    this.status = h("span");
    this.progress = h("progress", { max: 1 });
    this.epoch = h("span");
    this.left = h("span");
    this.metrics = h("div", { class: "metrics" });
    this.created = h("time");
    this.element = h(
      "tr",
      { class: "job", dataset: { id } },
      h("td", { class: "c-choose" }, this.choose),
      h("td", { class: "c-job" }, this.name, this.about),
      h("td", { class: "c-status" }, this.status),
      h("td", { class: "c-progress" }, this.progress, h("div", { class: "under" }, this.epoch, this.left)),
      h("td", { class: "c-metrics" }, this.metrics),
      h("td", { class: "c-created" }, this.created),
    );
    this.table = table;
  }

  update(job, chosen) {
    if (this.job === job && this.chosen === chosen) return;
    const before = this.job;
    this.job = job;
    this.chosen = chosen;
    const title = job.name || `${job.kind} ${job.id.slice(-6).toLowerCase()}`;
    this.element.classList.toggle("chosen", chosen);
    this.choose.checked = chosen;
    this.choose.setAttribute("aria-label", `Choose ${title}`);
    this.name.textContent = title;
    this.name.href = job.urls.page;
    this.name.title = title;
    const look = JSON.stringify([job.tags, job.health.map((item) => item.code), job.error?.code, job.kind]);
    if (look !== this.look) {
      this.look = look;
      this.about.replaceChildren(
        h("span", {}, job.kind === "gan" ? "GAN" : job.kind),
        h("code", {}, job.id.slice(-6).toLowerCase()),
        job.error ? h("span", { class: "finding error" }, words(job.error.code)) : "",
        ...job.health.filter((item) => item.code !== job.error?.code).map((item) => h("span", { class: `finding ${item.severity}` }, `⚠ ${words(item.code)}`)),
        ...job.tags.map((tag) => h("button", { class: "tag", type: "button", title: `Only ${tag}`, onclick: () => this.table.ontag(tag) }, tag)),
      );
    }
    const state = job.requested ? `${job.requested} requested` : job.status;
    if (this.status.textContent !== state || before?.status !== job.status) {
      this.status.className = `status ${job.status}`;
      this.status.textContent = state;
      this.progress.className = job.status;
    }
    const at = job.progress;
    this.progress.value = at.fraction;
    this.progress.setAttribute("aria-label", `${title}: ${Math.round(100 * at.fraction)}%`);
    this.epoch.textContent = `${at.epoch} / ${at.epochs}`;
    this.left.textContent = at.eta_seconds !== null ? `${duration(at.eta_seconds)} left` : took(job);
    const names = SHOWN.filter((name) => name in job.metrics).slice(0, 2);
    this.metrics.replaceChildren(...names.flatMap((name) => [h("span", { class: "muted" }, describe(name).label), h("span", {}, metric(name, job.metrics[name]))]));
    this.created.dateTime = job.created_at;
    this.created.title = when(job.created_at);
    this.created.textContent = ago(job.created_at);
  }
}

function took(job) {
  return job.started_at && job.finished_at ? duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000) : "";
}

export class JobTable {
  constructor(body, { onchoose, ontag, onnear }) {
    this.body = body;
    this.onchoose = onchoose;
    this.ontag = ontag;
    this.onnear = onnear; // called when the last rows come near
    this.rows = new Map();
    this.jobs = [];
    this.chosen = new Set();
    this.above = h("tr", { class: "spacer", "aria-hidden": true }, h("td", { colspan: 6 }));
    this.below = h("tr", { class: "spacer", "aria-hidden": true }, h("td", { colspan: 6 }));
    this.height = 60;
    addEventListener("scroll", () => this.later(), { passive: true });
    addEventListener("resize", () => this.later());
  }

  show(jobs, chosen) {
    this.jobs = jobs;
    this.chosen = chosen;
    this.draw();
  }

  later() {
    this.due ??= requestAnimationFrame(() => {
      this.due = null;
      this.draw();
    });
  }

  draw() {
    const row = this.body.querySelector("tr.job");
    if (row) this.height = row.offsetHeight || this.height;
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / this.height) - BEYOND);
    const last = Math.min(this.jobs.length, Math.ceil((innerHeight - top) / this.height) + BEYOND);
    const visible = this.jobs.slice(first, Math.max(first, last));
    const wanted = new Set(visible.map((job) => job.id));
    for (const id of this.rows.keys()) if (!wanted.has(id)) this.rows.delete(id);
    for (const job of visible) {
      if (!this.rows.has(job.id)) this.rows.set(job.id, new Row(job.id, this));
      this.rows.get(job.id).update(job, this.chosen.has(job.id));
    }
    this.above.firstChild.style.height = `${first * this.height}px`;
    this.below.firstChild.style.height = `${Math.max(0, this.jobs.length - Math.max(last, first)) * this.height}px`;
    const order = visible.map((job) => job.id).join();
    if (order !== this.order) {
      this.order = order;
      const focused = document.activeElement?.closest?.("tr.job") ? document.activeElement : null;
      this.body.replaceChildren(this.above, ...visible.map((job) => this.rows.get(job.id).element), this.below);
      if (focused?.isConnected) focused.focus({ preventScroll: true });
    }
    if (last >= this.jobs.length - BEYOND) this.onnear();
  }

  // Puts the keyboard on the row that lies so many rows further.
  move(by) {
    const now = this.jobs.findIndex((job) => job.id === this.current());
    const next = Math.max(0, Math.min(this.jobs.length - 1, now < 0 ? 0 : now + by));
    const place = this.body.getBoundingClientRect().top + scrollY + next * this.height;
    if (place < scrollY + 140 || place > scrollY + innerHeight - 2 * this.height) scrollTo({ top: place - innerHeight / 2 });
    this.draw();
    this.rows.get(this.jobs[next]?.id)?.name.focus({ preventScroll: true });
  }

  current() {
    return document.activeElement?.closest?.("tr.job")?.dataset.id ?? null;
  }
}
