//! Every principle and set that the configuration names.
//!
//! In: the configuration and the library. Out: findings with the line of the name's list.

use super::Report;
use super::place::Places;
use crate::config::Config;
use crate::principle::Library;

/// Looks up every name.
pub(super) fn check(config: &Config, library: &Library, places: &Places, report: &mut Report) {
    let principles = &config.principles;
    for (key, set) in [("judge_set", &principles.judge_set), ("aggregate_set", &principles.aggregate_set)] {
        if let Err(error) = library.set(&places.of(&format!("principles.{key}")), set) {
            report.finding(error);
        }
    }
    for (i, names) in principles.held_out.iter().enumerate() {
        report.findings(library.check_names(&places.of(&format!("principles.held_out.{i}")), names));
    }
    for (i, policy) in config.policies.iter().enumerate() {
        report.findings(library.check_names(&places.of(&format!("policies.{i}.principles")), &policy.principles));
        let Some(set) = policy.draw_set.as_ref().filter(|_| policy.draw > 0) else { continue };
        match library.set(&places.of(&format!("policies.{i}.draw_set")), set) {
            Err(error) => report.finding(error),
            Ok(members) => {
                let place = places.of(&format!("policies.{i}.draw"));
                let what = format!("the set `{set}`");
                report.findings(Library::check_draw(&place, &what, &members, policy.draw.max(0) as usize));
            }
        }
    }
}
