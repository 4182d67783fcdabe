// The rows of the jobs table: job rows and group rows. `update` writes only what has changed,
// so that nothing loses the focus.
import { $$, ago, counted, describe, duration, h, kindOf, metric, when, words } from "../common/dom.js";
import { fullText, headingOf, summary, text } from "./cells.js";
import { isOver, kindName, shortId, statusClass, statusText, titleOf } from "../common/job-facts.js";

const label = (column) => h("span", { class: "label" }, headingOf(column));

export class JobRow {
  constructor(id, columns, on) {
    this.on = on;
    this.columns = columns;
    this.select = h("input", { type: "checkbox", onclick: (event) => on.select(id, event.shiftKey) });
    this.star = h("button", { class: "star quiet icon", type: "button", onclick: () => on.star(id) });
    this.name = h("a", { class: "name" });
    this.note = h("button", { class: "noted quiet icon", type: "button", onclick: () => on.note(id) }, "✎");
    this.about = h("div", { class: "about" });
    this.star.disabled = this.note.disabled = document.body.classList.contains("only-reads");
    this.cells = columns.map((column) => cell(column));
    this.element = h(
      "tr",
      { class: "job", dataset: { id } },
      h("td", { class: "c-choose" }, this.select),
      h("td", { class: "c-star" }, this.star),
      h("td", { class: "c-job" }, h("div", { class: "title" }, this.name, this.note), this.about),
      ...this.cells.map((item) => item.element),
    );
  }

  update(job, selected, best, parents) {
    if (this.job === job && this.selected === selected && this.best === best && this.parents === parents) return;
    Object.assign(this, { job, selected, best, parents });
    const title = titleOf(job);
    this.element.classList.toggle("chosen", selected);
    this.select.checked = selected;
    this.select.setAttribute("aria-label", `Select ${title}`);
    this.star.setAttribute("aria-pressed", job.starred);
    this.star.textContent = job.starred ? "★" : "☆";
    this.star.setAttribute("aria-label", `Star ${title}`);
    this.star.title = job.starred ? "Starred" : "Star";
    this.name.textContent = title;
    this.name.href = job.urls.page;
    this.name.title = title;
    this.note.classList.toggle("has", Boolean(job.note));
    this.note.title = job.note ?? "Add a note";
    this.note.setAttribute("aria-label", job.note ? `Note of ${title}: ${job.note}` : `Add a note to ${title}`);
    this.describe(job, parents[job.parent_id]);
    for (const item of this.cells) item.update(job, title, best);
  }

  describe(job, parent) {
    const rendered = JSON.stringify([
      job.tags,
      job.health.map((item) => item.code),
      job.error?.code,
      job.kind,
      job.parent_id,
      parent,
      job.reproduction,
      this.on.showsOwners && this.on.nameOf(job.owner),
    ]);
    if (rendered === this.rendered) return;
    this.rendered = rendered;
    // A removed element gets no such event.
    this.about.querySelector(".lineage")?.dispatchEvent(new Event("mouseleave"));
    this.about.replaceChildren(
      h("span", {}, kindName(job.kind)),
      h("code", {}, shortId(job.id)),
      this.on.showsOwners && job.owner
        ? h(
          "a",
          { class: "tag", href: `/?owner=${encodeURIComponent(job.owner)}`, title: `Jobs of ${job.owner}` },
          this.on.nameOf(job.owner),
        )
        : "",
      job.parent_id ? lineage(job, parent) : "",
      job.error ? h("span", { class: "finding error" }, words(job.error.code)) : "",
      ...job.health.filter((item) => item.code !== job.error?.code).map((item) =>
        h("span", { class: `finding ${item.severity}` }, `⚠ ${words(item.code)}`)
      ),
      ...job.tags.map((tag) =>
        h("button", { class: "tag", type: "button", title: `Only ${tag}`, onclick: () => this.on.tag(tag) }, tag)
      ),
    );
  }
}

// The origin of a job: a link to its parent, whose row is highlighted on hover.
function lineage(job, parent) {
  const origin = parent ?? shortId(job.parent_id);
  const { reproduction } = job;
  const outcome = reproduction?.match === true ? ": bit-identical" : reproduction?.match === false ? ": differs" : "";
  const description = reproduction ? `≡ reproduces ${origin}` : `↳ fork of ${origin}`;
  const show = (on) => () => $$(`tr.job[data-id="${job.parent_id}"]`).forEach((row) => row.classList.toggle("kin", on));
  if (parent === undefined) return h("span", { class: "lineage", title: "The parent was deleted" }, description);
  const title = reproduction
    ? `Reproduces ${origin}${outcome}`
    : `Continues from epoch ${job.start_epoch} of ${origin}`;
  return h(
    "a",
    {
      class: "lineage",
      href: `/ui/jobs/${job.parent_id}`,
      title,
      onmouseenter: show(true),
      onmouseleave: show(false),
      onfocus: show(true),
      onblur: show(false),
    },
    description,
    outcome && h("span", { class: reproduction.match ? "same" : "finding error" }, reproduction.match ? " ✓" : " ≠"),
  );
}

function cell(column) {
  return (SPECIAL[column.name] ?? plain)(column);
}

const SPECIAL = {
  status() {
    const content = h("span");
    const element = h("td", { class: "c-status" }, content);
    return {
      element,
      update(job) {
        content.className = statusClass(job);
        content.textContent = job.requested ? `${job.requested} requested` : statusText(job);
      },
    };
  },
  progress() {
    const [bar, epoch, timeLeft] = [h("progress", { max: 1 }), h("span"), h("span")];
    return {
      element: h("td", { class: "c-progress" }, bar, h("div", { class: "under" }, epoch, timeLeft)),
      update(job, title) {
        const progress = job.progress;
        bar.className = job.status;
        bar.value = progress.fraction;
        bar.setAttribute("aria-label", `${title}: ${Math.round(100 * progress.fraction)}%`);
        epoch.textContent = kindOf(job.kind).trains
          ? `${progress.epoch} / ${progress.epochs}`
          : `${progress.step.toLocaleString("en")} / ${progress.steps.toLocaleString("en")}`;
        timeLeft.title = isOver(job) ? "From the first start to the end, pauses included" : "";
        timeLeft.textContent = progress.eta_seconds !== null && !isOver(job)
          ? `${duration(progress.eta_seconds)} left`
          : totalTime(job);
      },
    };
  },
  metrics() {
    const content = h("div", { class: "metrics" });
    return {
      element: h("td", { class: "c-metrics" }, content),
      update: (job) => content.replaceChildren(...summary(job)),
    };
  },
};

function plain(column) {
  const isTime = column.type === "time";
  const content = h(isTime ? "time" : "span", { class: "shown" });
  const hiddenText = h("span", { class: "visually-hidden" }); // tells screen readers what the font weight shows
  const element = h(
    "td",
    { class: `c-plain ${column.type}`, dataset: { column: column.name } },
    label(column),
    content,
    hiddenText,
  );
  return {
    element,
    update(job, _title, best) {
      const value = job.columns[column.name];
      if (isTime && value) content.dateTime = value;
      const isBest = column.goal && value !== null && value === best[column.name];
      element.classList.toggle("best", Boolean(isBest));
      content.title = isBest ? `${fullText(column, value)}: the best of the loaded jobs` : fullText(column, value);
      if (column.type === "job" && value) {
        content.replaceChildren(h("a", { href: `/ui/jobs/${value}` }, shortId(value)));
      } else content.textContent = text(column, value);
      hiddenText.textContent = isBest ? "best" : "";
    },
  };
}

function totalTime(job) {
  return job.started_at && job.finished_at
    ? duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000)
    : "";
}

export class GroupRow {
  constructor(columns, on) {
    this.columns = columns;
    this.toggle = h("button", { class: "toggle quiet", type: "button", onclick: () => on.toggle(this.section) });
    this.bests = columns.map((column) =>
      h("td", { class: `c-plain ${column.type}`, dataset: { column: column.name } })
    );
    this.element = h("tr", { class: "group" }, h("td", { class: "c-group", colspan: 3 }, this.toggle), ...this.bests);
  }

  update(section) {
    const { group, open } = section;
    this.section = section;
    if (section.sweep) return void this.updateSweep(section.sweep, open);
    this.toggle.setAttribute("aria-expanded", open);
    this.toggle.replaceChildren(
      h("span", { class: "caret", "aria-hidden": true }, open ? "▾" : "▸"),
      h("strong", {}, group.label),
      h("span", { class: "muted" }, ` ${counted(group.count, "job")}`),
      section.by === "spec" && group.example ? h("span", { class: "muted" }, ` · ${group.example}`) : "",
    );
    this.columns.forEach((column, index) => {
      const value = group.best[column.name];
      const hasValue = typeof value === "number";
      this.bests[index].replaceChildren(
        ...(hasValue
          ? [
            label(column),
            h("span", { class: "shown", title: `Best of the group: ${value}` }, `${metric(column.metric, value)}`),
          ]
          : []),
      );
      this.bests[index].classList.toggle("none", !hasValue);
    });
  }

  // A collapsed sweep: one row for all of its jobs.
  updateSweep(sweep, open) {
    const rendered = JSON.stringify([sweep, open]);
    if (rendered === this.rendered) return;
    this.rendered = rendered;
    this.toggle.setAttribute("aria-expanded", open);
    this.toggle.title = open ? "Hide its jobs" : "Show its jobs";
    this.toggle.replaceChildren(
      h("span", { class: "caret", "aria-hidden": true }, open ? "▾" : "▸"),
      h("strong", {}, sweep.title),
      h("span", { class: "muted" }, ` sweep, ${counted(sweep.jobs, "job")}`),
    );
    this.link ??= h("a", { class: "small" }, "Open sweep");
    this.link.href = sweep.page;
    this.link.setAttribute("aria-label", `Open the sweep ${sweep.title}`);
    if (!this.link.isConnected) this.toggle.after(this.link);
    const values = {
      status: () => h("span", { class: `status ${sweep.status}` }, sweep.status),
      progress: () => [
        h("progress", {
          max: Math.max(1, sweep.trials),
          value: sweep.finished_trials,
          class: sweep.status,
          "aria-label": `${sweep.title}: trials that have ended`,
        }),
        h("div", { class: "under" }, `${sweep.finished_trials} / ${counted(sweep.trials, "trial")}`),
      ],
      metrics: () => (sweep.best_value === null ? [] : h(
        "div",
        { class: "metrics" },
        h("span", { class: "muted" }, `best ${describe(sweep.metric).label}`),
        h("span", {}, metric(sweep.metric, sweep.best_value)),
      )),
      created_at: () =>
        h("time", { class: "shown", datetime: sweep.created_at, title: when(sweep.created_at) }, ago(sweep.created_at)),
    };
    this.columns.forEach((column, index) => {
      const isBest = column.metric === sweep.metric && sweep.best_value !== null;
      const content = values[column.name]?.() ??
        (isBest
          ? [
            label(column),
            h("span", { class: "shown", title: "Of the best trial" }, metric(sweep.metric, sweep.best_value)),
          ]
          : []);
      this.bests[index].replaceChildren(...[content].flat());
    });
  }
}
