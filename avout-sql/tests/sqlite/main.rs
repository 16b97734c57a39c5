//! What only SQLite does: files, processes, and what happens to both.

mod backups;
mod file;
mod group;
mod history;
mod opening;
mod processes;
mod sanity;
mod support;
mod threads;
mod upgrade;
