// What text on the page has a contrast below 4.5 to what is behind it (WCAG AA): colours and text of each.
() => {
  // A button that comes back after its call fades in: what counts is what it is then, not a frame on the way.
  for (const motion of document.getAnimations()) {
    if (Number.isFinite(motion.effect.getComputedTiming().endTime)) motion.finish();
  }
  const linear = (c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const parsed = (text) => {
    const found = (text.match(/[\d.]+/g) || []).map(Number);
    return found.length < 4 ? [...found, 1] : found;
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const colour = parsed(getComputedStyle(one).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const opacity = (element) => {
    let all = 1;
    for (let one = element; one; one = one.parentElement) all *= +getComputedStyle(one).opacity;
    return all;
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((one) => one.nodeType === 3).map((one) => one.textContent.trim()).join("");
    const skipped = ["STYLE", "SCRIPT", "TITLE"].includes(element.tagName) || element.closest(".disabled, [disabled]");
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    if (!text || skipped || !element.getBoundingClientRect().width || !colour.startsWith("rgb")) continue;
    if (element instanceof SVGElement && colour === "rgb(255, 255, 255)") continue; // on a bar: tested with its colours
    const front = parsed(colour);
    front[3] *= opacity(element);
    if (!front[3] || style.visibility === "hidden") continue;
    const ground = behind(element);
    const [a, b] = [luminance(over(front, ground)), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${colour} on ${ground.map(Math.round)}: ${text.slice(0, 30)}`);
  }
  return faint;
}
