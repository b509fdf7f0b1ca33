"The line of a run for a ledger, copied with one click."

CELLS = ['import latentlab as ll\npanel = ll.lab("hvae", points=400, layers=2, check_every=20, steps=60, device="cpu")\npanel']


def test_one_click_copies_the_line(open_notebook):
    notebook = open_notebook(CELLS, name="ledger", width=1280, height=900)
    notebook.wait_data("Number(d.painted) > 2 && Number(d.step) > 25", 40)
    notebook.execute("panel.trainer.pause()")
    notebook.page.wait_for_selector("[data-state=paused]", timeout=60_000)
    # the measurement at rest writes the line anew; a press must meet the button that stays
    notebook.page.wait_for_function("""() => document.querySelector('.ll-stamp[data-step]')?.dataset.step
                                    === document.querySelector('.ll').dataset.step""", timeout=60_000)
    button = notebook.page.locator(".ll-copy").first
    button.wait_for(state="visible", timeout=60_000)
    line = button.get_attribute("data-copy")
    notebook.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button.click()
    notebook.page.wait_for_function("() => document.querySelector('.ll-copy').innerText.includes('copied')", timeout=60_000)
    assert line.endswith("@ 10, 1,000 test") and notebook.page.evaluate("navigator.clipboard.readText()") == line
    assert not notebook.errors
