// What a person who cannot see well, or has no mouse, would miss in the parts of the page that a selector finds: names of
// controls, a mark of the focus, words for pictures, contrast (WCAG 2.2, AA: 4.5, or 3 for large text).
(selector) => {
  const CONTROLS = "button,input,select,textarea,a[href],summary,[role=button],[role=slider],[role=progressbar],[tabindex]";
  const WRITTEN = ["INPUT", "TEXTAREA", "SELECT"]; // what stands in them is not their name
  const found = new Set();
  const shown = (el) => el.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && el.getClientRects().length;
  const what = (el) => `${el.tagName.toLowerCase()}.${el.getAttribute("class") ?? ""}`;
  const nameOf = (el) => {
    const label = el.getAttribute("aria-label") || document.getElementById(el.getAttribute("aria-labelledby"))?.textContent;
    return (label || el.labels?.[0]?.textContent || (WRITTEN.includes(el.tagName) ? "" : el.innerText) || el.title).trim();
  };
  const colour = (text) => {
    const [r, g, b, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    const whole = text.startsWith("color(") ? 255 : 1;
    return [r * whole, g * whole, b * whole, alpha];
  };
  const over = (above, below) => [0, 1, 2].map((i) => above[i] * above[3] + below[i] * (1 - above[3]));
  const ground = (el) => {
    if (!el) return [255, 255, 255];
    const own = colour(getComputedStyle(el).backgroundColor);
    return own[3] === 1 ? own : over(own, ground(el.parentElement));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const marks = (el) => {
    const { outlineStyle, outlineWidth, boxShadow, borderColor } = getComputedStyle(el);
    return [outlineStyle !== "none" && outlineWidth, boxShadow, borderColor].join();
  };
  const before = document.activeElement;
  for (const root of document.querySelectorAll(selector)) {
    for (const el of [...root.querySelectorAll(CONTROLS)].filter(shown)) {
      if (!nameOf(el) && (el.tabIndex >= 0 || el.role)) found.add(`no name: ${what(el)}`);
      if (el.tabIndex < 0 || el.disabled) continue;
      el.blur();
      const unmarked = marks(el);
      el.focus({ focusVisible: true, preventScroll: true });
      if (marks(el) === unmarked) found.add(`no mark of the focus: ${what(el)}`);
    }
    for (const el of [...root.querySelectorAll("svg,canvas,img")].filter(shown)) {
      if (!el.alt && !el.closest("[aria-hidden=true],[aria-label]")) found.add(`a picture without words: ${what(el)}`);
    }
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const [text, el] = [texts.currentNode.textContent.trim(), texts.currentNode.parentElement];
      if (!text || !shown(el) || el.closest(":disabled,[aria-hidden=true]")) continue;
      const { color, fontSize, fontWeight } = getComputedStyle(el);
      const below = ground(el);
      const [dark, light] = [luminance(over(colour(color), below)), luminance(below.slice(0, 3))].sort((a, b) => a - b);
      const contrast = (light + 0.05) / (dark + 0.05);
      const large = parseFloat(fontSize) >= (fontWeight >= 700 ? 18.66 : 24);
      if (contrast < (large ? 3 : 4.5)) found.add(`contrast ${contrast.toFixed(2)}: ${what(el)} "${text.slice(0, 30)}"`);
    }
  }
  before?.focus?.({ preventScroll: true });
  return [...found];
}
