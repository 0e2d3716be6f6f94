"""What runs models. A kind is a module here, and one line: the module, and its settings in the configuration."""

KINDS = {
    "onnx": "OnnxBackend",  # installed bundles, by ONNX Runtime
    "sagemaker": "SageMakerBackend",  # real-time endpoints
    "external": "ExternalBackend",  # an accelerator's own runtime in another process
    "http": "HttpBackend",  # GET <url>?features=<csv>
}
