// Dragging with a mouse, a pen or a finger: pointer events, for those of HTML's own drag and drop never come from a
// finger. What is dragged follows the pointer; what it would land on is asked for at each move.

const FAR = 6; // pixels before a press is a drag and no click

export interface Drop {
  over(x: number, y: number): void;
  end(dropped: boolean): void;
}

/** Lets `item` be dragged; `begin` is called when it starts to be. A drag is no click of what lies under it. */
export function draggable(item: HTMLElement, begin: () => Drop): void {
  item.addEventListener("pointerdown", (down) => {
    if (down.button !== 0 || (down.target as HTMLElement).closest("button")) return;
    if (down.pointerType === "touch" && !(down.target as HTMLElement).closest(".gpt-grip")) return; // a finger scrolls
    let drop: Drop | null = null;
    const stop = new AbortController();
    const finish = (event: PointerEvent | null) => {
      stop.abort();
      if (!drop) return;
      window.addEventListener("click", swallow, { capture: true, once: true });
      setTimeout(() => window.removeEventListener("click", swallow, { capture: true }));
      drop.end(event !== null); // while it still stands where it was let go, so that it glides home from there
      item.classList.remove("gpt-dragged");
      item.style.transform = "";
    };
    const move = (event: PointerEvent) => {
      const [x, y] = [event.clientX - down.clientX, event.clientY - down.clientY];
      if (!drop && Math.hypot(x, y) < FAR) return;
      if (!drop) {
        drop = begin();
        item.classList.add("gpt-dragged");
        window.getSelection()?.removeAllRanges();
      }
      event.preventDefault();
      item.style.transform = `translate(${x}px, ${y}px)`;
      drop.over(event.clientX, event.clientY);
    };
    const cancel = (event: KeyboardEvent) => {
      if (event.key !== "Escape") return;
      swallow(event);
      finish(null);
    };
    const options = { signal: stop.signal };
    window.addEventListener("pointermove", move, options);
    window.addEventListener("pointerup", finish, options);
    window.addEventListener("pointercancel", () => finish(null), options);
    window.addEventListener("keydown", cancel, { ...options, capture: true });
  });
}

function swallow(event: Event): void {
  event.stopPropagation();
  event.preventDefault();
}
