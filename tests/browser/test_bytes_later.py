"A front end that says a word before the bytes which came with it are there, as marimo does: the page waits for the bytes."

import base64
import json

from browser.latent_feeder import LatentFeeder

from latentlab.panels.view import browser_module

PAGE = """async ([code, text]) => {
    const state = JSON.parse(text), late = {}, told = {};
    for (const name of ["frame", "held", "curves"]) {
        const bytes = Uint8Array.from(atob(state[name]), (c) => c.charCodeAt(0));
        late[name] = new DataView(bytes.buffer); state[name] = new DataView(new ArrayBuffer(0));
    }
    const model = { get: (name) => state[name], set: () => {}, save_changes: () => {}, send: () => {}, off: () => {}, on: (event, call) => (told[event] ??= []).push(call) };
    const tell = (name) => (told[`change:${name}`] ?? []).forEach((call) => call());
    const { default: view } = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    const el = document.body.appendChild(document.createElement("div"));
    await view.render({ model, el });
    for (const name of ["held", "frame"]) { tell(`${name}_meta`); state[name] = late[name]; tell(name); }
}"""


def test_bytes_that_come_after_their_words_are_read(browser):
    feeder = LatentFeeder("fashion-mnist", 2)
    state = {name: value for name, value in feeder.view.get_state().items() if not name.startswith("_")}
    coded = {name: base64.b64encode(value).decode() if isinstance(value, bytes | memoryview) else value for name, value in state.items()}
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.evaluate(PAGE, [browser_module(), json.dumps(coded, default=str)])
    page.wait_for_selector("[data-row=recon0] canvas", timeout=30_000)
    page.close()
