"""`sentiment serve`: the champion over HTTP, without MLflow and TensorFlow.

A request goes through `app.MIDDLEWARE` to a route, `invocations` or `open_inference`, which reads what it asks for
(`payloads`) within `limits`; `batching` scores it together with what waits beside it, with the version that
`following` holds.
"""
