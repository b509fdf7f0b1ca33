"A family of one's own: four modules (model, diagnostics, experiment, display) and a lab notebook. Copy it and change what you need."
