//! Pooling advice (being written).
