//! The verdict on a commit, from one version of the table.

use std::collections::HashSet;

use object_store::path::Path;
use reckon_data::table::{Commit, Table, TableError};

use crate::format::unusable;
use crate::state::State;

/// What is to be done with a commit.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It may become the next version.
    Ready,
    /// It is in the log already, as this version.
    Committed(u64),
    /// It has no place here.
    Refused {
        /// Why.
        error: TableError,
        /// Every step stands where the commit would put it: an older attempt of the same commit may have done that.
        perhaps_ours: bool,
    },
}

/// Judges a commit against the version it would follow.
pub(crate) fn judge(state: &State, commit: &Commit) -> Verdict {
    if let Some(version) = state.made_by(commit.token) {
        return Verdict::Committed(version);
    }
    let table = state.table.name();
    for step in &commit.steps {
        let found = state.transaction(&step.name);
        if found != step.from {
            let error = TableError::Fenced { table, name: step.name.clone(), found, expected: step.from };
            let perhaps_ours = commit.steps.iter().all(|step| state.transaction(&step.name) == step.to);
            return Verdict::Refused { error, perhaps_ours };
        }
    }
    let gone = commit.remove.iter().find(|file| !state.files.contains_key(&file.path));
    let twice = commit.add.iter().find(|file| state.files.contains_key(&file.path));
    let reason = match (gone, twice) {
        (None, None) => return Verdict::Ready,
        (Some(file), _) => format!("file {} to be removed is not live", file.path),
        (None, Some(file)) => format!("file {} to be added is live already", file.path),
    };
    Verdict::Refused { error: TableError::Conflict { table, reason }, perhaps_ours: false }
}

/// Refuses a commit that makes no sense whatever the table holds: a mistake of the program.
pub(crate) fn shape(commit: &Commit) -> Result<(), TableError> {
    let refused = |reason: String| Err(unusable(commit.table, format!("a commit of it is malformed: {reason}")));
    if commit.steps.is_empty() {
        return refused("it has no step".to_owned());
    }
    let mut names = HashSet::new();
    if let Some(step) = commit.steps.iter().find(|step| !names.insert(step.name.as_str())) {
        return refused(format!("it steps {} twice", step.name));
    }
    let mut paths = HashSet::new();
    if let Some(file) = commit.add.iter().chain(&commit.remove).find(|file| !paths.insert(file.path.as_str())) {
        return refused(format!("it names file {} twice", file.path));
    }
    for file in &commit.add {
        if file.path.starts_with('/') || Path::parse(&file.path).map_or(true, |path| path.as_ref() != file.path) {
            return refused(format!("{} is no path of a file", file.path));
        }
        if !partitioned_right(commit.table, file.partition.keys().map(String::as_str)) {
            return refused(format!("file {} has values of partition columns {:?}", file.path, file.partition.keys()));
        }
    }
    Ok(())
}

fn partitioned_right<'a>(table: Table, given: impl Iterator<Item = &'a str>) -> bool {
    let given: HashSet<&str> = given.collect();
    given == table.partition_columns().iter().copied().collect()
}
