// Functions that tests call in a page. Colours are those of sRGB: [red, green, blue, alpha], 0 to 255 and 0 to 1.
var measure = (() => {
  const colour = (text) => {
    const n = text.match(/[\d.]+/g).map(Number);
    return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);

  // background is what is behind an element: that of all its ancestors, one over the other.
  const background = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none" || style.opacity !== "1") { throw new Error(`cannot measure ${e.className}: a picture or opacity`); }
      layers.push(colour(style.backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };

  // luminance and contrast are relative luminance and contrast ratio of WCAG 2.2.
  const luminance = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05);
  };

  const shown = (e) => e.getClientRects().length > 0 && getComputedStyle(e).visibility === "visible";

  // texts measures each text that is drawn: how many there are, and which ones have too little contrast for AA.
  const texts = () => {
    const weak = {};
    let count = 0;
    const seen = (element, text, pseudo) => {
      const style = getComputedStyle(element, pseudo);
      const behind = background(element);
      const ink = over(colour(element instanceof SVGElement ? style.fill : style.color), behind);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const ratio = contrast(ink, behind);
      count++;
      if (ratio < (large ? 3 : 4.5)) { weak[`${element.tagName}.${element.getAttribute("class") || ""} "${text.slice(0, 40)}"`] = ratio.toFixed(2); }
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let n = walker.nextNode(); n; n = walker.nextNode()) {
      if (n.data.trim() && shown(n.parentElement)) { seen(n.parentElement, n.data.trim()); }
    }
    for (const e of document.querySelectorAll("input, select, button")) {
      if (shown(e)) { seen(e, e.value); }
    }
    for (const e of document.querySelectorAll("body *")) {
      for (const pseudo of ["::before", "::after"]) {
        const content = getComputedStyle(e, pseudo).content;
        if (shown(e) && content !== "none" && content !== "normal" && content !== '""') { seen(e, content, pseudo); }
      }
    }
    return { count, weak };
  };

  // stops are what the keyboard must reach, in the order of the page. Of a closed part only its title counts.
  const stops = () => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")].filter((e) => e.type !== "hidden" && shown(e));

  // focus describes what has the focus: its place among the stops, and whether a reader sees it.
  const focus = () => {
    const at = document.activeElement;
    const style = getComputedStyle(at);
    const box = at.getBoundingClientRect();
    const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
    return {
      place: stops().indexOf(at),
      name: `${at.tagName}.${at.className} ${at.getAttribute("href") || at.id}`,
      visible: outline >= 2 && contrast(colour(style.outlineColor), background(at.parentElement)) >= 3 &&
        box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
    };
  };
  return { texts, stops, focus };
})();
