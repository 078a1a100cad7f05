// The search runs in a Worker, which browsers refuse to a page that is opened from a disk. There, the
// same script runs in a hidden frame. As with a Worker, messages are copies and arrive later.
if (location.protocol === "file:") {
  const later = (receive, data) => {
    const copy = structuredClone(data);
    setTimeout(() => receive({ data: copy }));
  };
  window.Worker = class {
    constructor(source) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => later((event) => this.onmessage?.(event), data);
      const script = inside.document.createElement("script");
      script.src = source;
      script.onerror = (event) => this.onerror?.(event);
      this.ready = new Promise((resolve) => (script.onload = resolve));
      inside.document.body.append(script);
    }
    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.ready.then(() => later((event) => inside.onmessage(event), data));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
