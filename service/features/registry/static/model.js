// The page of a model: moves, rolls back and removes aliases, edits gates, approves and deletes versions.
import { $, $$, announce, sentence } from "../common/dom.js";
import { call, onRestored } from "../common/api.js";
import { onSubmit, showFaults } from "../common/dialogs.js";
import { refresh } from "../common/live.js";
import { findingItems, follow, showEvidence, supply } from "./findings.js";
import { wireGates } from "./gates.js";

const model = JSON.parse($("#model").textContent);
const query = model.owner ? `?owner=${encodeURIComponent(model.owner)}` : "";
const base = `/models/${model.name}`;
const address = (path, also = "") => `${base}${path}${query}${also && (query ? "&" : "?") + also}`;

async function refreshPage() {
  await refresh().catch(() => {}); // the action has succeeded even if the refresh fails
  showEvidence();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { move, rollback, remove, approve, delete: version, deleteModel, export: reference, seq, alias } =
    button.dataset;
  const atMove = { "If-Match": `"${seq}"` };
  if ("close" in button.dataset) button.closest("dialog").close();
  else if (move !== undefined) openMove(alias, move);
  else if (reference) openExport(reference);
  else if (rollback) {
    ask({
      title: `Roll back @${rollback}?`,
      text: "It will hold the version that it held before. Its gates are not checked again.",
      field: "Reason",
      action: "Roll back",
      run: async (reason) =>
        announce(
          `@${rollback} is version ${
            (await call(address(`/aliases/${rollback}/rollback`), {
              method: "POST",
              body: { reason: reason || null },
              headers: atMove,
            })).version
          } again`,
          "good",
        ),
    });
  } else if (remove) {
    ask({
      title: `Remove @${remove}?`,
      text: `Programs that use ${model.name}@${remove} fail until it is moved again. Its gates and history stay.`,
      action: "Remove",
      isDangerous: true,
      run: () => call(address(`/aliases/${remove}`), { method: "DELETE", headers: atMove }),
    });
  } else if (approve) {
    ask({
      title: `Approve ${model.name}:${approve}?`,
      text: "An approval names your key, and stays. The key that registered the version cannot approve it.",
      field: "What was checked",
      action: "Approve",
      run: (note) => call(address(`/versions/${approve}/approvals`), { method: "POST", body: { note: note || null } }),
    });
  } else if (version) {
    ask({
      title: `Delete ${model.name}:${version}?`,
      text: "Its job and checkpoint stay, and can be deleted then. The number is not used again.",
      action: "Delete",
      isDangerous: true,
      run: () => call(address(`/versions/${version}`), { method: "DELETE" }),
    });
  } else if (deleteModel !== undefined) {
    ask({
      title: `Delete the model ${model.name}?`,
      text: "Deletes its versions and the history of its aliases. The jobs stay. This cannot be undone.",
      action: "Delete",
      isDangerous: true,
      run: async () => {
        await call(address(""), { method: "DELETE" });
        location.assign(`/ui/models${query}`);
      },
    });
  }
});

// A question with a button that carries it out; a problem is shown in the dialog.
let answered = null;
function ask({ title, text, field = null, action, isDangerous = false, run }) {
  $("#sure-title").textContent = title;
  $("#sure-text").textContent = text;
  $("#sure-field").hidden = field === null;
  $("#sure-field span").textContent = field ?? "";
  $("#sure-input").value = "";
  $("#sure-error").hidden = true;
  $("#sure-go").textContent = action;
  $("#sure-go").className = isDangerous ? "danger" : "primary";
  answered = run;
  $("#sure").showModal();
}
onSubmit($("#sure form"), $("#sure-error"), async () => {
  try {
    await answered($("#sure-input").value.trim());
    $("#sure").close();
  } finally {
    await refreshPage();
  }
});

function openExport(reference) {
  $("#export-title").textContent = `Export ${reference}`;
  for (const link of $$("#export a[data-format]")) {
    link.href = `/models/${encodeURIComponent(reference)}/export/${link.dataset.format}`;
  }
  $("#export").showModal();
}

// Moving an alias: if another person has moved it since the page was read, the service refuses.
let seen = {}; // the number of the last move of each alias on the page
let started = []; // jobs and sweeps that supply what is missing
let round = 0; // ends what waits for an earlier state of the dialog

function look() {
  seen = Object.fromEntries($$("section.alias").map(({ dataset }) => [dataset.name, dataset.seq]));
}
const condition = (alias) => (alias in seen ? { "If-Match": `"${seen[alias]}"` } : { "If-None-Match": "*" });

function openMove(alias, version) {
  forget();
  look();
  $("#move-error").hidden = true;
  $("#move-reason").value = "";
  $("#move-alias").value = alias ?? "";
  if (version) $("#move-version").value = version;
  $("#move").showModal();
}

// Hides what was found about another alias or version.
function forget() {
  round += 1;
  started = [];
  $("#move-found").hidden = true;
  $("#supplied").replaceChildren();
  if (!$("#move-force")) return;
  $("#move-force").checked = false;
  $("#move-force-label").hidden = true;
}

// Shows the findings; a press on the button of one sends its requests, waits for what they started, and checks again.
function showFindings(findings) {
  const failed = findings.filter(({ passed }) => !passed).length;
  $("#move-verdict").textContent = !findings.length
    ? "This alias has no gates."
    : failed
    ? `${failed} of ${findings.length} gates not met`
    : "All gates are met";
  $("#move-found ul").replaceChildren(...findingItems(findings, supplyFor));
  $("#move-found").hidden = false;
  if ($("#move-force")) $("#move-force-label").hidden = !failed;
}

async function supplyFor(finding, button) {
  const own = ++round;
  button.disabled = true;
  $("#move-error").hidden = true;
  try {
    started.push(...(await supply(finding, model.owner)));
    const isOver = () => own !== round;
    if (started.length && !(await follow(started, $("#supplied"), isOver))) return;
    await check();
  } catch (error) {
    showFaults($("#move-error"), error);
    button.disabled = false;
  }
}

const body = () => ({
  version: Number($("#move-version").value),
  reason: $("#move-reason").value.trim() || null,
  force: $("#move-force")?.checked ?? false,
});

async function attempt(isDryRun) {
  const alias = $("#move-alias").value.trim().replace(/^@/, "");
  if (!alias) return $("#move-alias").reportValidity();
  for (const button of $$("#move-check, #move-go")) button.disabled = true;
  $("#move-error").hidden = true;
  try {
    const sent = isDryRun ? { version: body().version } : body();
    const answer = await call(address(`/aliases/${encodeURIComponent(alias)}`, isDryRun ? "dry_run=true" : ""), {
      method: "PUT",
      body: sent,
      headers: isDryRun ? {} : condition(alias),
    });
    if (isDryRun) return showFindings(answer.findings);
    $("#move").close();
    announce(
      answer.moved ? `@${alias} is version ${answer.version} now` : `@${alias} already was version ${answer.version}`,
      "good",
    );
    await refreshPage();
  } catch (error) {
    if (error.problem?.code === "gate_failed") return showFindings(error.problem.gates);
    if (error.status === 412) {
      await refreshPage();
      look(); // the reader is told: a second press goes by what is known now
      error.message = `${sentence(error.message)} Press Move again to move it nevertheless.`;
    }
    showFaults($("#move-error"), error);
  } finally {
    for (const button of $$("#move-check, #move-go")) button.disabled = false;
  }
}
const check = () => attempt(true);

$("#move-check").addEventListener("click", check);
for (const id of ["alias", "version"]) {
  $(`#move-${id}`).addEventListener("input", forget);
}
$("#move form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(false);
});
$("#move").addEventListener("close", forget);

if ($("#gates")) wireGates((alias) => address(`/aliases/${encodeURIComponent(alias)}/gates`), refreshPage);
showEvidence();
onRestored(refreshPage);
