// What may be done with a job: only what the service allows has a button.
import { $, announce } from "./dom.js";
import { call } from "./api.js";

const DONE = { cancel: "Cancelling", pause: "Pausing", resume: "Queued", retry: "Queued" };

// onedit: a name, a star or the like was changed; onchange: the job may be in another state
export function wireActions(job, onedit, onchange) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button) return;
    const { action } = button.dataset;
    if (action === "fork") return openFork(job);
    if (action === "delete" && !(await asked($("#delete")))) return;
    button.disabled = true;
    try {
      if (action === "delete") {
        await call(job.urls.self, { method: "DELETE" });
        location.assign("/");
        return;
      }
      const now = await call(`${job.urls.self}/${action}`, { method: "POST" });
      if (action === "reproduce") {
        location.assign(now.urls.page);
        return;
      }
      announce(DONE[action], "good");
      onchange();
    } catch (error) {
      announce(error.message, "error");
      button.disabled = false;
      onchange();
    }
  });
  wireFork(job);
  wireEdit(job, onedit);
  wireStar(job, onedit);
}

function asked(dialog) {
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function told(element, error) {
  const faults = (error.problem?.errors ?? []).map((fault) => `${(fault.pointer ?? "").replace("#/overrides", "")} ${fault.detail}`.trim());
  element.textContent = faults.length ? faults.join(" · ") : error.message;
  element.hidden = false;
}

async function openFork(job) {
  $("#fork-error").hidden = true;
  const [detail, list] = await Promise.all([call(job.urls.self), call(job.urls.checkpoints)]).catch((error) => {
    announce(error.message, "error");
    return [];
  });
  if (!detail) return;
  const options = list.data.toReversed().map((item) => {
    const words = [item.best && "best", item.latest && "latest"].filter(Boolean).join(", ");
    return new Option(`epoch ${item.epoch}${words ? ` (${words})` : ""}`, item.epoch);
  });
  $("#fork-from").replaceChildren(...options);
  $("#fork-epochs").value = Math.max(detail.progress.epochs, detail.progress.epoch + 1) + (detail.progress.epoch >= detail.progress.epochs ? detail.progress.epochs - 1 : 0);
  $("#fork-rate").placeholder = String(detail.resolved.optimizer.learning_rate);
  $("#fork-rate").value = "";
  $("#fork-name").value = "";
  $("#fork-name").placeholder = detail.name ? "by default: the next free number, such as name-2" : "";
  write();
  $("#fork").showModal();
}

// The fields write into the JSON; the JSON is what is sent.
function write() {
  let overrides;
  try {
    overrides = JSON.parse($("#fork-overrides").value || "{}");
  } catch {
    overrides = {};
  }
  const [epochs, rate, name] = ["epochs", "rate", "name"].map((field) => $(`#fork-${field}`).value);
  if (epochs) overrides.epochs = Number(epochs);
  if (rate) overrides.optimizer = { ...overrides.optimizer, learning_rate: Number(rate) };
  if (name) overrides.name = name;
  $("#fork-overrides").value = JSON.stringify(overrides, null, 2);
}

function wireFork(job) {
  for (const field of ["epochs", "rate", "name"]) $(`#fork-${field}`).addEventListener("input", write);
  $("#fork form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("#fork-go");
    button.disabled = true;
    try {
      const body = { checkpoint: Number($("#fork-from").value), overrides: JSON.parse($("#fork-overrides").value) };
      location.assign((await call(`${job.urls.self}/fork`, { method: "POST", body })).urls.page);
    } catch (error) {
      told($("#fork-error"), error);
      button.disabled = false;
    }
  });
}

function wireEdit(job, onedit) {
  $("#rename").addEventListener("click", async () => {
    $("#edit-error").hidden = true;
    const now = await call(job.urls.self).catch((error) => announce(error.message, "error"));
    if (!now) return;
    $("#edit-name").value = now.name ?? "";
    $("#edit-tags").value = now.tags.join(", ");
    $("#edit-priority").value = now.priority;
    $("#edit-note").value = now.note ?? "";
    $("#edit-starred").checked = now.starred;
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
      await call(job.urls.self, { method: "PATCH", body });
      $("#edit").close();
      onedit();
    } catch (error) {
      told($("#edit-error"), error);
    }
  });
}

function wireStar(job, onedit) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("#star");
    if (!button) return;
    const starred = button.getAttribute("aria-pressed") !== "true";
    try {
      await call(job.urls.self, { method: "PATCH", body: { starred } });
      onedit();
    } catch (error) {
      announce(error.message, "error");
    }
  });
}
