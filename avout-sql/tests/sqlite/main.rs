//! What only SQLite does: files, processes, and what happens to both.

mod file;
mod group;
mod processes;
mod sanity;
mod support;
