// A GAN's latent space: a point and some directions, a walk between two points, and a grid of points.
import { $, $$, announce, debounce, h } from "../common/dom.js";
import { call, request } from "../common/api.js";
import { save } from "../common/dialogs.js";
import { wireCheckpoints } from "./parts.js";
import { latest } from "../common/latest.js";

const DIRECTIONS = 6;
const SAMPLE_COUNT = 30;
const job = JSON.parse($("#job").textContent);

if ($("#picture")) {
  const epoch = wireCheckpoints(job, () => {
    show();
    walk();
    showSamples();
  });
  const classSelect = $("#class"); // only for a conditional GAN
  const chosenClass = () => (classSelect ? { class: Number(classSelect.value) } : {});
  const generate = (body) =>
    call(`${job.urls.self}/generate`, { method: "POST", body: { checkpoint: epoch(), ...chosenClass(), ...body } });
  const source = (image) => `data:image/png;base64,${image}`;
  const announcingErrors = (run) => async () => {
    try {
      await run();
    } catch (error) {
      announce(error.message, "error");
    }
  };
  const state = { center: null, point: null, start: null, end: null, frames: [], manySeed: 1 };

  const sliders = Array.from({ length: DIRECTIONS }, (_, index) => {
    const slider = h("input", { type: "range", min: -1, max: 1, step: 0.02, "aria-label": `Direction ${index + 1}` });
    slider.value = 0;
    slider.addEventListener("input", () => {
      state.point = movedPoint();
      show();
    });
    $("#sliders").append(
      h("label", { class: "inline small" }, h("span", { class: "muted" }, String(index + 1)), slider),
    );
    return slider;
  });

  // Directions are random but reproducible: mulberry32, seeded by the direction's number.
  function direction(number) {
    let seed = (number + 1) * 0x9e3779b9;
    const random = () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
    return Array.from({ length: job.latent.dim }, () => 2 * random() - 1);
  }
  const directions = sliders.map((_, index) => direction(index));

  function movedPoint() {
    const range = job.latent.distribution === "normal" ? 3 : 1.5;
    return state.center.map((value, dimension) => {
      const coordinate = value +
        range * sliders.reduce((sum, slider, index) => sum + Number(slider.value) * directions[index][dimension], 0);
      return job.latent.distribution === "uniform" ? Math.max(-1, Math.min(1, coordinate)) : coordinate;
    });
  }

  const show = latest(announcingErrors(async () => {
    if (!state.point) return;
    const { images } = await generate({ latent: [state.point] });
    $("#picture").src = source(images[0]);
  }));

  async function setCenter(point) {
    state.center = point;
    for (const slider of sliders) slider.value = 0;
    state.point = point;
    await show();
  }

  const showSeed = announcingErrors(async () => {
    const { latent } = await generate({ seeds: [Number($("#seed").value) || 0], with_latent: true });
    await setCenter(latent[0]);
    if (!state.start) {
      state.start = latent[0];
      await chooseEnd();
    }
  });

  const chooseEnd = announcingErrors(async () => {
    const { latent } = await generate({ seeds: [randomSeed()], with_latent: true });
    state.end = latent[0];
    await walk();
  });

  const walk = latest(announcingErrors(async () => {
    if (!state.start || !state.end) return;
    const steps = Number($("#way").max);
    const { images } = await generate({ latent: [state.start, state.end], steps });
    state.frames = images.map(source);
    $("#start").src = state.frames[0];
    $("#end").src = state.frames.at(-1);
    step();
  }));

  const step = () => ($("#step").src = state.frames[Number($("#way").value)] ?? "");
  const randomSeed = () => Math.floor(Math.random() * 1e6);

  const showSamples = latest(announcingErrors(async () => {
    const { images, latent } = await generate({ seed: state.manySeed, count: SAMPLE_COUNT, with_latent: true });
    const old = $$("#many button");
    if (old.length === images.length) old.forEach((button, index) => ($("img", button).src = source(images[index])));
    else {$("#many").replaceChildren(...images.map((image, index) =>
        h("button", {
          type: "button",
          class: "thumb",
          "aria-label": `Sample ${index + 1}`,
          onclick: () => setCenter(state.points[index]),
        }, h("img", { src: source(image), alt: "" }))
      ));}
    state.points = latent;
  }));

  let playing = null;
  function play() {
    if (playing) {
      clearInterval(playing);
      playing = null;
    } else {
      let delta = 1;
      playing = setInterval(() => {
        const positionSlider = $("#way");
        const position = Number(positionSlider.value);
        if (position + delta > Number(positionSlider.max) || position + delta < 0) delta = -delta;
        positionSlider.value = position + delta;
        step();
      }, 80);
    }
    $("#play").textContent = playing ? "Pause" : "Play";
    $("#play").setAttribute("aria-pressed", String(Boolean(playing)));
  }

  const downloadFilm = announcingErrors(async () => {
    const body = {
      checkpoint: epoch(),
      ...chosenClass(),
      latent: [state.start, state.end, state.start],
      steps: 24,
      format: "film",
      scale: 8,
    };
    const response = await request(`${job.urls.self}/generate`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    save(await response.blob(), "walk.gif");
  });

  classSelect?.addEventListener("change", () => {
    show();
    walk();
    showSamples();
  });
  $("#seed").addEventListener("input", debounce(150, showSeed));
  $("#random").addEventListener("click", () => {
    $("#seed").value = randomSeed();
    showSeed();
  });
  $("#center").addEventListener("click", () => setCenter(state.center));
  for (const end of ["start", "end"]) {
    $(`#as-${end}`).addEventListener("click", () => {
      state[end] = state.point;
      walk();
    });
  }
  $("#way").addEventListener("input", step);
  $("#play").addEventListener("click", play);
  $("#another").addEventListener("click", chooseEnd);
  $("#film").addEventListener("click", downloadFilm);
  $("#more").addEventListener("click", () => {
    state.manySeed = randomSeed();
    showSamples();
  });
  showSeed();
  showSamples();
}
