"use strict";
(() => {
  const list = document.getElementById("answers");
  const model = document.getElementById("model");
  const order = document.getElementById("order");
  if (!list || !model || !order) return;
  const sections = Array.from(list.children);
  const arrange = () => {
    list.className = "show-" + model.value;
    const value = (section) => {
      if (order.value === "file") return -Number(section.dataset.file);
      if (order.value === "spread") return Number(section.getAttribute("data-spread-" + model.value));
      const lead = Number(section.getAttribute("data-lead-" + model.value));
      return order.value === "lead" ? lead : -lead;
    };
    sections.sort((one, other) => value(other) - value(one));
    list.append(...sections);
  };
  model.addEventListener("change", arrange);
  order.addEventListener("change", arrange);
})();
