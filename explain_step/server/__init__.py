"""Plugins for ``mlflow server``: promotion is refused at the server, whoever asks and by whatever route.

Three places see every request. The *registry store* (``explain-gate+sqlite://``, `explain_step.server.registry_store`)
sees aliases, stages, versions and tags; the *artifact repository* (``explain-gate+file://``,
`explain_step.server.artifact_repository`) sees every byte that goes through the server; the *tracking store*
(`explain_step.server.tracking_store`) sees deletions of runs and logged models. `explain_step.server.start` joins them
when the server starts and refuses to serve with one of them missing.
"""
