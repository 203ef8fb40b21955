//! The control plane: the REST API, the store, and what is published to the data plane.
