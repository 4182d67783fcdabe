// Finds the epoch from which a metric is bad by binary search, and offers a fork from the checkpoint before it.
import { $, describe, h, metric } from "../common/dom.js";
import { call } from "../common/api.js";
import { onSubmit } from "../common/dialogs.js";

// curves: those of the job, whose metrics can be chosen. fork(epoch): offers a fork from a checkpoint.
export function wireBisection(job, curves, fork) {
  const value = () => Number($("#bisect-value").value) / (describe($("#bisect-metric").value).percent ? 100 : 1);

  function clear() {
    $("#bisect-error").hidden = true;
    $("#bisect-found").hidden = true;
    $("#bisect-fork").hidden = true;
  }

  function choose() {
    const { goal, percent } = describe($("#bisect-metric").value);
    $("#bisect-side").value = goal === "maximize" ? "below" : "above";
    $("#bisect-unit").textContent = percent ? "%" : "";
    $("#bisect-value").setAttribute("aria-label", percent ? "Limit in percent" : "Limit");
    $("#bisect-value").value = "";
    clear();
  }

  function show(bisection) {
    const probes = bisection.probes.map((probe) =>
      `epoch ${probe.epoch} (${probe.value === null ? "not finite" : metric(bisection.metric, probe.value)})`
    );
    $("#bisect-sentence").textContent = bisection.sentence;
    $("#bisect-probes").textContent = probes.length ? `Looked at ${probes.join(", ")}.` : "";
    $("#bisect-found").hidden = false;
    $("#bisect-fork").hidden = bisection.checkpoint === null;
    $("#bisect-fork").textContent = `Fork from epoch ${bisection.checkpoint}`;
    $("#bisect-fork").onclick = () => {
      $("#bisect").close();
      fork(bisection.checkpoint);
    };
  }

  $("#bisect-open").addEventListener("click", () => {
    const { series } = curves.table;
    const names = Object.keys(series).filter((name) =>
      !name.includes("/") && series[name].some((item) => item !== null)
    );
    const ranked = names.sort((a, b) => describe(a).label.localeCompare(describe(b).label));
    const chosen = $("#bisect-metric").value ||
      (names.includes("val_accuracy") ? "val_accuracy" : names.find((name) => describe(name).goal));
    $("#bisect-metric").replaceChildren(
      ...ranked.map((name) => h("option", { value: name, selected: name === chosen }, describe(name).label)),
    );
    choose();
    $("#bisect").showModal();
  });
  $("#bisect-metric").addEventListener("change", choose);
  $("#bisect-side").addEventListener("change", clear);
  $("#bisect-value").addEventListener("input", clear);
  onSubmit($("#bisect form"), $("#bisect-error"), async () => {
    clear();
    const query = new URLSearchParams({ metric: $("#bisect-metric").value, [$("#bisect-side").value]: value() });
    show(await call(`${job.urls.self}/bisection?${query}`));
  });
}
