def load(path, name, device):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provide(options, OPTIONS)
    places = [ROOT / folder / f"{name}_ctx.onnx" for folder in ("build", "compiled")]
    session = onnxruntime.InferenceSession(str(next((p for p in places if p.exists()), path)), options)
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds)))


