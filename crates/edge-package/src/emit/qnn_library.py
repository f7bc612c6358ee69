def provide(options, more):
    """Puts the QNN provider with the HTP's library into a session's options."""
    import onnxruntime
    import onnxruntime_qnn as qnn

    own = Path(os.environ["QNN_LIB"]).resolve() if os.environ.get("QNN_LIB") else None
    if not any(d.ep_name == qnn.get_ep_name() for d in onnxruntime.get_ep_devices()):
        library = own / "libonnxruntime_providers_qnn.so" if own else None
        library = library if library and library.exists() else qnn.get_library_path()
        onnxruntime.register_execution_provider_library(qnn.get_ep_name(), str(library))
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == qnn.get_ep_name()]
    if not devices:
        sys.exit("ONNX Runtime finds no device of the QNN provider on this machine")
    backend = str(own / "libQnnHtp.so") if own else qnn.get_qnn_htp_path()
    options.add_provider_for_devices(devices[:1], {"backend_path": backend, **more})


