// The samples of the compared jobs side by side, all of the same epoch.
import { $, h, showImage } from "../common/dom.js";
import { Samples } from "../job/samples.js";

// swatch(job): the colour of a job. Returns the slider.
export function samplesBeside(jobs, swatch) {
  const epochs = [...new Set(jobs.flatMap((job) => job.samples))].sort((a, b) => a - b);
  $("#samples").hidden = epochs.length === 0;
  const frames = jobs.map((job) => ({
    job,
    image: h("img", { class: "pixels", alt: "", loading: "lazy" }),
    text: h("span", { class: "small muted" }),
  }));
  $("#beside").replaceChildren(
    h("img", { hidden: true, alt: "" }),
    ...frames.map(({ job, image, text }) =>
      h(
        "figure",
        { "data-job": job.id },
        image,
        h("figcaption", { class: "small" }, swatch(job), ` ${job.label} `, text),
      )
    ),
  );
  // The slider covers all epochs of all jobs; each job shows its latest image up to that epoch.
  const scrubber = new Samples($("#samples"), [], () => "data:,");
  scrubber.listeners.push((epoch) => {
    for (const { job, image, text } of frames) {
      const shownEpoch = job.samples.findLast((item) => item <= epoch);
      image.hidden = shownEpoch === undefined;
      text.textContent = shownEpoch === undefined ? "none yet" : `epoch ${shownEpoch}`;
      if (shownEpoch === undefined) continue;
      image.alt = `Samples of ${job.label}, epoch ${shownEpoch}`;
      showImage(image, `${job.urls.self}/samples/${shownEpoch}.png`);
    }
  });
  scrubber.epochs = epochs;
  if (epochs.length) scrubber.show(epochs.length - 1);
  return scrubber;
}
