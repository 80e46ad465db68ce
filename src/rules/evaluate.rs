//! Runs every rule once, caps confidence, folds symptoms under causes, sorts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Input, Rule};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::Source;
use crate::observation::nat::Family;

/// What came of one evaluation.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// What holds, worst first; within a severity causes before symptoms, then by confidence.
    pub findings: Vec<Finding>,
    /// What holds too, but is explained by one of `findings`.
    pub suppressed: Vec<Suppressed>,
    /// Rules that could not be checked, or not everywhere, and found nothing.
    pub not_checked: Vec<NotChecked>,
    /// Rules that found something and could not look everywhere: it may hold elsewhere too.
    pub in_part: Vec<NotChecked>,
}

/// A symptom that is folded beneath its cause.
#[derive(Debug)]
pub struct Suppressed {
    /// The symptom.
    pub finding: Finding,
    /// Index of the cause in [`Evaluation::findings`].
    pub explained_by: usize,
}

/// A rule that was not checked: neither true nor false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotChecked {
    /// The rule.
    pub code: &'static str,
    /// The sources that were missing.
    pub missing: Vec<Source>,
}

/// What could not be checked, or not everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Of rules that found nothing.
    pub not_checked: Vec<NotChecked>,
    /// Of rules that found something.
    pub in_part: Vec<NotChecked>,
}

impl Missed {
    /// Adds what is not known yet.
    fn extend(&mut self, other: Self) {
        for (own, theirs) in [
            (&mut self.not_checked, other.not_checked),
            (&mut self.in_part, other.in_part),
        ] {
            for one in theirs {
                if !own.contains(&one) {
                    own.push(one);
                }
            }
        }
    }
}

/// Rules and what they are to judge; several such parts become one verdict.
pub struct Part<'a> {
    /// The rules, causes before symptoms.
    pub rules: Vec<&'static Rule>,
    /// What they look at.
    pub input: Input<'a>,
    /// What its findings are marked with as evidence: where it was seen.
    pub seen_at: Option<String>,
}

/// Evaluates `rules` over `input`.
pub fn evaluate(rules: &[&Rule], input: &Input<'_>) -> Evaluation {
    evaluate_by(rules, |_| input)
}

/// Evaluates each of `rules` over the input that belongs to it.
pub fn evaluate_by<'a>(rules: &[&Rule], input_of: impl Fn(&Rule) -> &'a Input<'a>) -> Evaluation {
    let (all, missed) = gather(rules, input_of);
    settle(rules, all, missed)
}

/// Evaluates each part, and folds over all of them. What an earlier part says of the same thing, with the same code, a
/// later one does not say again.
pub fn evaluate_parts(parts: Vec<Part<'_>>) -> Evaluation {
    let mut rules: Vec<&Rule> = Vec::new();
    let mut all: Vec<(usize, Finding)> = Vec::new();
    let mut all_missed = Missed::default();
    for part in parts {
        let (found, missed) = gather(&part.rules, |_| &part.input);
        let first = rules.len();
        rules.extend(part.rules);
        let known = all.len();
        for (order, mut finding) in found {
            let is_known = all
                .iter()
                .take(known)
                .any(|(_, earlier)| earlier.code == finding.code && earlier.subject.covers(&finding.subject));
            if is_known {
                continue;
            }
            if let Some(place) = &part.seen_at {
                finding.evidence = std::mem::take(&mut finding.evidence).with("seen_at", place.clone());
            }
            all.push((first + order, finding));
        }
        all_missed.extend(missed);
    }
    settle(&rules, all, all_missed)
}

/// Findings that were judged before, folded and sorted as when they were made; one whose code is in none of `rules` is left
/// out. `missed` says what could not be judged.
pub fn fold_again(rules: &[&Rule], findings: Vec<Finding>, missed: Missed) -> Evaluation {
    let place = |finding: &Finding| rules.iter().position(|rule| rule.code == finding.code);
    let all = findings
        .into_iter()
        .filter_map(|f| Some((place(&f)?, f)))
        .collect();
    settle(rules, all, missed)
}

/// The rules that cannot be checked, or not everywhere, as far as `input` knows how its sources fare; whether they found
/// something is not asked.
pub fn unseen(rules: &[&Rule], input: &Input<'_>) -> Vec<NotChecked> {
    let unseen_by = |rule: &&Rule| {
        let mut missing = missing(rule, input);
        let not_asked = |s: &Source| s.on_request() && input.world.sources.get(*s).is_none();
        if missing.iter().any(not_asked) {
            return None;
        }
        if missing.is_empty() {
            missing = blind(rule, input);
        }
        (!missing.is_empty()).then_some(NotChecked {
            code: rule.code,
            missing,
        })
    };
    rules.iter().filter_map(unseen_by).collect()
}

/// What holds, with its rule's place, and what could not be checked.
fn gather<'a>(rules: &[&Rule], input_of: impl Fn(&Rule) -> &'a Input<'a>) -> (Vec<(usize, Finding)>, Missed) {
    let mut all = Vec::new();
    let mut missed = Missed::default();
    for (order, rule) in rules.iter().enumerate() {
        let input = input_of(rule);
        let missing = missing(rule, input);
        let not_asked = |s: &Source| s.on_request() && input.world.sources.get(*s).is_none();
        if missing.iter().any(not_asked) {
            continue;
        }
        if !missing.is_empty() {
            missed.not_checked.push(NotChecked {
                code: rule.code,
                missing,
            });
            continue;
        }
        let found = (rule.check)(input);
        let missing = blind(rule, input);
        if !missing.is_empty() {
            let list = if found.is_empty() {
                &mut missed.not_checked
            } else {
                &mut missed.in_part
            };
            list.push(NotChecked {
                code: rule.code,
                missing,
            });
        }
        all.extend(found.into_iter().map(|f| (order, cap(f))));
    }
    (all, missed)
}

fn settle(rules: &[&Rule], mut all: Vec<(usize, Finding)>, missed: Missed) -> Evaluation {
    raise(rules, &mut all);
    // Stable, so findings of one rule keep the order in which it made them.
    all.sort_by(|(o1, f1), (o2, f2)| {
        f2.severity
            .cmp(&f1.severity)
            .then(o1.cmp(o2))
            .then(f2.confidence.cmp(&f1.confidence))
    });
    let all: Vec<Finding> = all.into_iter().map(|(_, f)| f).collect();
    let (findings, suppressed) = fold(rules, all);
    Evaluation {
        findings,
        suppressed,
        not_checked: missed.not_checked,
        in_part: missed.in_part,
    }
}

/// The sources that `rule` needs and that see nothing: whole groups only.
fn missing(rule: &Rule, input: &Input<'_>) -> Vec<Source> {
    let sees = |s: &Source| input.world.sources.sees(*s);
    rule.needs
        .iter()
        .filter(|group| !group.iter().any(sees))
        .flat_map(|group| group.iter().copied())
        .collect()
}

/// The sources that `rule` could have used too and that see nothing although they were started: where it found nothing, it
/// has not looked everywhere (userspace devices are hidden, say, while the kernel's are seen).
fn blind(rule: &Rule, input: &Input<'_>) -> Vec<Source> {
    let sources = &input.world.sources;
    let is_blind = |s: &Source| sources.get(*s).is_some() && !sources.sees(*s);
    rule.needs
        .iter()
        .flat_map(|group| group.iter().copied())
        .filter(is_blind)
        .collect()
}

/// A mere hint is never above a warning.
fn cap(mut finding: Finding) -> Finding {
    if finding.confidence == Confidence::Possible {
        finding.severity = finding.severity.min(Severity::Warning);
    }
    finding
}

/// Every code that may explain `code`, however many steps away.
fn causes_of(rules: &[&Rule], code: &str) -> BTreeSet<&'static str> {
    let mut known = BTreeSet::new();
    let mut open = vec![code];
    while let Some(code) = open.pop() {
        // One code may have a rule in each part.
        let causes = rules
            .iter()
            .filter(|r| r.code == code)
            .flat_map(|r| r.explained_by);
        for cause in causes {
            if known.insert(*cause) {
                open.push(cause);
            }
        }
    }
    known
}

/// Which findings may explain which, by code: a host with thousands of failing peers must not compare each with each.
struct Causes {
    codes: BTreeMap<&'static str, BTreeSet<&'static str>>,
    places: BTreeMap<&'static str, Vec<usize>>,
}

impl Causes {
    fn of<'a>(rules: &[&Rule], all: impl Iterator<Item = &'a Finding>) -> Self {
        let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (place, finding) in all.enumerate() {
            places.entry(finding.code).or_default().push(place);
        }
        let codes = places
            .keys()
            .map(|code| (*code, causes_of(rules, code)))
            .collect();
        Self { codes, places }
    }

    /// Where the findings stand whose code may explain `symptom`.
    fn places(&self, symptom: &Finding) -> impl Iterator<Item = usize> {
        let codes = self.codes.get(symptom.code).into_iter().flatten();
        codes
            .filter(move |code| **code != symptom.code)
            .filter_map(|code| self.places.get(code))
            .flatten()
            .copied()
    }
}

/// Whether `cause`, by its code a possible one, explains `symptom`. A mere possibility explains nothing: it must not
/// hide what is certain.
fn explains(cause: &Finding, symptom: &Finding) -> bool {
    cause.confidence > Confidence::Possible
        && cause.subject.covers(&symptom.subject)
        && same_family(cause, symptom)
}

/// A cause that holds for one address family (`udp-blocked`) explains nothing that goes over the other.
fn same_family(cause: &Finding, symptom: &Finding) -> bool {
    let of = cause.evidence.get("family").and_then(Value::as_str);
    let goes_over = symptom.subject.endpoint().map(|ip| Family::of(ip).name());
    match (of, goes_over) {
        (Some(of), Some(over)) => of == over,
        _ => true,
    }
}

/// Makes a cause as bad as the worst that it explains: what is folded beneath it must not lower the verdict.
fn raise(rules: &[&Rule], all: &mut [(usize, Finding)]) {
    let causes = Causes::of(rules, all.iter().map(|(_, f)| f));
    // Severities only rise, so this ends.
    let mut changed = true;
    while changed {
        changed = false;
        for at in 0..all.len() {
            let symptom = &all[at].1;
            let worse: Vec<usize> = causes
                .places(symptom)
                .filter(|cause| all[*cause].1.severity < symptom.severity)
                .filter(|cause| explains(&all[*cause].1, symptom))
                .collect();
            let severity = symptom.severity;
            for cause in worse {
                all[cause].1.severity = severity;
                changed = true;
            }
        }
    }
}

/// Folds each finding beneath the first finding that explains it and is not itself folded away.
fn fold(rules: &[&Rule], all: Vec<Finding>) -> (Vec<Finding>, Vec<Suppressed>) {
    let causes = Causes::of(rules, all.iter());
    let explainer: Vec<Option<usize>> = all
        .iter()
        .map(|symptom| {
            causes
                .places(symptom)
                .filter(|cause| explains(&all[*cause], symptom))
                .min()
        })
        .collect();
    // Follow to the root. The registry test proves that causes form no cycle; were there one, nothing on it folds.
    let root = |start: usize| {
        let mut at = start;
        for _ in 0..all.len() {
            match explainer[at] {
                Some(next) => at = next,
                None => return at,
            }
        }
        start
    };
    let roots: Vec<usize> = (0..all.len()).map(root).collect();
    let mut place = vec![0; all.len()];
    let mut kept = 0;
    for (index, place) in place.iter_mut().enumerate() {
        if roots[index] == index {
            *place = kept;
            kept += 1;
        }
    }
    let mut findings = Vec::new();
    let mut suppressed = Vec::new();
    for (index, finding) in all.into_iter().enumerate() {
        if roots[index] == index {
            findings.push(finding);
        } else {
            suppressed.push(Suppressed {
                finding,
                explained_by: place[roots[index]],
            });
        }
    }
    (findings, suppressed)
}

#[cfg(test)]
mod tests;
