"What an encoder in training looks at, in the lab itself: its row comes and goes with the setting, and says how old it is."

CELLS = ['import latentlab as ll\npanel = ll.lab("ssl", method="supervised", images=256, batch=32, check_every=1000, explain=3, journal="explained")\npanel',
         "panel.trainer.pause()\nprint(panel.trainer.step_count)"]


def test_the_row_says_its_age_and_goes_when_it_is_off(open_notebook):
    notebook = open_notebook(CELLS, name="ssl", width=1280, height=900)
    page = notebook.page
    notebook.wait_data("Number(d.painted) > 1", 60)
    page.wait_for_function("() => document.querySelector('.ll').innerText.includes('looked at')", timeout=60_000)
    assert "looked at" in page.locator(".ll").first.inner_text()
    notebook.execute("panel.trainer.step(30); panel.trainer.wait()")
    page.wait_for_function("() => /of step \\d\\d, /.test(document.querySelector('.ll').innerText)", timeout=60_000)
    notebook.shot("ssl-1280", 1280, 900)
    notebook.shot("ssl-1680", 1680, 1050)
    notebook.execute("panel.trainer.set(explain=0); panel.trainer.step(2)")
    page.wait_for_function("() => !document.querySelector('.ll').innerText.includes('looked at')", timeout=60_000)
    assert not notebook.errors
