// Registers a checkpoint of the job as a version of a model.
import { $, announce, h } from "../common/dom.js";
import { call, callAll } from "../common/api.js";
import { onSubmit } from "../common/dialogs.js";
import { checkpointOptions } from "../common/job-facts.js";
import { shownCheckpoint } from "../job/model.js";

const job = JSON.parse($("#job").textContent);

document.addEventListener("click", async (event) => {
  if (!event.target.closest("#register-open")) return;
  $("#register-error").hidden = true;
  const [checkpoints, models] = await Promise.all([callAll(job.urls.checkpoints), call("/models?limit=100")]).catch(
    (error) => {
      announce(error.message, "error");
      return [];
    },
  );
  if (!checkpoints) return;
  const shown = checkpoints.find((item) => item[shownCheckpoint()]) ?? checkpoints.at(-1);
  $("#register-checkpoint").replaceChildren(...checkpointOptions(checkpoints));
  if (shown) $("#register-checkpoint").value = shown.epoch;
  $("#register-names").replaceChildren(...models.data.map(({ name }) => h("option", { value: name })));
  $("#register").showModal();
});
onSubmit($("#register form"), $("#register-error"), async () => {
  const name = $("#register-name").value.trim();
  const body = {
    job: job.id,
    checkpoint: Number($("#register-checkpoint").value),
    note: $("#register-note").value.trim() || null,
  };
  const version = await call(`/models/${encodeURIComponent(name)}/versions`, { method: "POST", body });
  $("#register").close();
  announce(
    version.job === job.id && version.checkpoint === body.checkpoint
      ? `Registered as ${version.reference}`
      : `The same bits are ${version.reference} already`,
    "good",
  );
  document.dispatchEvent(new Event("job-edited"));
});
