// The actions on a job: only those that the service allows have a button.
import { $, announce, capital, sentence } from "../common/dom.js";
import { call, callAll, change } from "../common/api.js";
import { confirmed, onSubmit, showFaults } from "../common/dialogs.js";
import { checkpointOptions } from "../common/job-facts.js";

const DONE = { cancel: "Cancelling", pause: "Pausing", resume: "Queued", retry: "Queued" };

// onedit: called after an edit of the name, tags, note or star; onchange: called when the job's state may have changed
export function wireActions(job, onedit, onchange) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button || button.ariaDisabled === "true") return;
    const { action } = button.dataset;
    if (action === "fork") return openFork(job);
    if (action === "delete" && !(await confirmed($("#delete")))) return;
    button.ariaDisabled = "true"; // until the page is refreshed; disabling it would drop its keyboard focus
    try {
      if (action === "delete") {
        job.isGone = true; // stop requesting
        await call(job.urls.self, { method: "DELETE" });
        location.assign("/");
        return;
      }
      const updated = await call(`${job.urls.self}/${action}`, { method: "POST" });
      if (action === "reproduce") {
        location.assign(updated.urls.page);
        return;
      }
      announce(DONE[action], "good");
      onchange();
    } catch (error) {
      job.isGone = false;
      announce(error.message, "error");
      button.ariaDisabled = null;
      onchange();
    }
  });
  wireFork(job);
  wireBudget(job, onchange);
  wireEdit(job, onedit);
  wireStar(job, onedit);
  document.addEventListener("job-edited", onedit); // by scripts of features
}

// from: the epoch of the preselected checkpoint (default: the newest).
export async function openFork(job, from) {
  $("#fork-error").hidden = true;
  const [detail, checkpoints] = await Promise.all([call(job.urls.self), callAll(job.urls.checkpoints)]).catch(
    (error) => {
      announce(error.message, "error");
      return [];
    },
  );
  if (!detail) return;
  $("#fork-from").replaceChildren(...checkpointOptions(checkpoints));
  if (from !== undefined && checkpoints.some((item) => item.epoch === from)) $("#fork-from").value = from;
  $("#fork-epochs").value = Math.max(detail.progress.epochs, detail.progress.epoch + 1) +
    (detail.progress.epoch >= detail.progress.epochs ? detail.progress.epochs - 1 : 0);
  $("#fork-rate").placeholder = String(detail.resolved.optimizer.learning_rate);
  $("#fork-overrides").value = JSON.stringify({ epochs: Number($("#fork-epochs").value) }, null, 2);
  readOverrides();
  $("#fork-name").placeholder = detail.name ? "by default: the next free number, such as name-2" : "";
  $("#fork").showModal();
}

// The dialog's fields for overrides: how each is read from the JSON and written to it.
const OVERRIDES = {
  epochs: {
    read: (overrides) => overrides.epochs,
    write: (overrides, text) => setOrDelete(overrides, "epochs", text && Number(text)),
  },
  name: { read: (overrides) => overrides.name, write: (overrides, text) => setOrDelete(overrides, "name", text) },
  rate: {
    read: ({ optimizer }) => optimizer?.learning_rate,
    write(overrides, text) {
      const { optimizer } = overrides;
      const settings = typeof optimizer === "string" ? { name: optimizer } : { ...optimizer };
      setOrDelete(settings, "learning_rate", text && Number(text));
      setOrDelete(overrides, "optimizer", Object.keys(settings).length ? settings : "");
    },
  },
};

function setOrDelete(object, name, value) {
  if (value === "") delete object[name];
  else object[name] = value;
}

// The overrides as typed; null and a note while the JSON is invalid.
function parseOverrides() {
  const note = $("#fork-error");
  try {
    const overrides = JSON.parse($("#fork-overrides").value || "{}");
    if (typeof overrides !== "object" || overrides === null || Array.isArray(overrides)) {
      throw new SyntaxError("Overrides are a JSON object.");
    }
    note.hidden = true;
    return overrides;
  } catch (error) {
    showFaults(note, new Error(`The JSON of the overrides is not valid. ${sentence(error.message)}`));
    return null;
  }
}

// The JSON is what gets sent. Each field edits its part of it, and edits of the JSON update the fields.
function writeOverride(field) {
  const overrides = parseOverrides();
  if (overrides === null) return; // keep what was typed
  OVERRIDES[field].write(overrides, $(`#fork-${field}`).value);
  $("#fork-overrides").value = JSON.stringify(overrides, null, 2);
}

function readOverrides() {
  const overrides = parseOverrides();
  if (overrides === null) return;
  for (const [field, { read }] of Object.entries(OVERRIDES)) $(`#fork-${field}`).value = read(overrides) ?? "";
}

function wireFork(job) {
  for (const field of Object.keys(OVERRIDES)) $(`#fork-${field}`).addEventListener("input", () => writeOverride(field));
  $("#fork-overrides").addEventListener("input", readOverrides);
  onSubmit($("#fork form"), $("#fork-error"), async () => {
    const overrides = parseOverrides();
    if (overrides === null) return;
    const body = { checkpoint: Number($("#fork-from").value), overrides };
    location.assign((await call(`${job.urls.self}/fork`, { method: "POST", body })).urls.page);
  });
}

// Raises the budget of a job that has spent it, and resumes or retries the job.
function wireBudget(job, onchange) {
  let verb = "resume";
  document.addEventListener("click", (event) => {
    const button = event.target.closest("#raise-budget");
    if (!button) return;
    verb = button.dataset.verb;
    $("#budget-title").textContent = `Raise the budget and ${verb}`;
    $("#budget-go").textContent = capital(verb);
    $("#budget-error").hidden = true;
    $("#budget-seconds").value = Math.ceil(Math.max(2 * button.dataset.budget, button.dataset.spent));
    $("#budget").showModal();
    $("#budget-seconds").select();
  });
  onSubmit($("#budget form"), $("#budget-error"), async () => {
    try {
      await call(job.urls.self, { method: "PATCH", body: { budget: { seconds: Number($("#budget-seconds").value) } } });
      await call(`${job.urls.self}/${verb}`, { method: "POST" });
      $("#budget").close();
      announce(DONE[verb], "good");
    } finally {
      onchange();
    }
  });
}

function wireEdit(job, onedit) {
  let current = null; // the job as it was when the dialog was opened
  $("#rename").addEventListener("click", async () => {
    $("#edit-error").hidden = true;
    current = await call(job.urls.self).catch((error) => announce(error.message, "error"));
    if (!current) return;
    $("#edit-name").value = current.name ?? "";
    $("#edit-tags").value = current.tags.join(", ");
    $("#edit-priority").value = current.priority;
    $("#edit-note").value = current.note ?? "";
    $("#edit-starred").checked = current.starred;
    $("#edit").showModal();
  });
  $("#edit form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const tags = $("#edit-tags").value.split(",").map((tag) => tag.trim()).filter(Boolean);
    const body = {
      name: $("#edit-name").value || null,
      tags,
      priority: Number($("#edit-priority").value),
      note: $("#edit-note").value.trim() || null,
      starred: $("#edit-starred").checked,
    };
    try {
      await change(job.urls.self, current, body);
      $("#edit").close();
      onedit();
    } catch (error) {
      showFaults($("#edit-error"), error);
    }
  });
}

function wireStar(job, onedit) {
  let busy = false;
  $("#star").addEventListener("click", async ({ currentTarget: button }) => {
    if (busy) return;
    busy = true;
    try {
      const updated = await call(job.urls.self, {
        method: "PATCH",
        body: { starred: button.getAttribute("aria-pressed") !== "true" },
      });
      button.setAttribute("aria-pressed", String(updated.starred));
      onedit();
    } catch (error) {
      announce(error.message, "error");
    } finally {
      busy = false;
    }
  });
}
