//! Pictures of ordinary, empty, torn and hostile series.

use proptest::prelude::*;

use super::*;

const FROM: i64 = 1_700_000_000;

fn steady(n: i64) -> Vec<Point> {
    (0..n)
        .map(|i| (FROM + i * 10, 50.0 + (i % 7) as f64, 40.0, 70.0))
        .collect()
}

fn plot<'a>(points: &'a [Point], to: i64) -> Plot<'a> {
    Plot {
        id: "ports",
        title: "Ports held",
        unit: Unit::Count("ports"),
        times: Times::Utc,
        from: FROM,
        to,
        step: 10,
        lines: vec![Line { name: "held", points }],
        limit: None,
        forecast: None,
        marks: Vec::new(),
    }
}

/// Panics unless `svg` is well-formed: tags nest, attributes are quoted, no number is none, all lies within the picture.
#[track_caller]
fn check(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        let end = rest[start..].find('>').expect("each tag ends") + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{svg}");
        } else {
            assert!(tag.matches('"').count() % 2 == 0, "{tag}");
            let name = tag.split([' ', '/']).next().unwrap();
            assert!(
                [
                    "svg",
                    "title",
                    "desc",
                    "g",
                    "path",
                    "text",
                    "circle",
                    "rect",
                    "figure",
                    "figcaption"
                ]
                .contains(&name),
                "{tag}"
            );
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        for word in ["style=", "href", "onload"] {
            assert!(!tag.contains(word), "{tag}");
        }
        for number in coordinates(tag) {
            assert!((-5.0..=1000.0).contains(&number), "{number} in {tag}");
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for word in ["NaN", "inf", "<script"] {
        assert!(!drawn(svg).contains(word), "{word}: {svg}");
    }
}

/// All tags and texts but the title and the description.
fn drawn(svg: &str) -> &str {
    svg.split_once("</desc>").map_or(svg, |(_, rest)| rest)
}

fn coordinates(tag: &str) -> Vec<f64> {
    let names = [
        " x=\"",
        " y=\"",
        " cx=\"",
        " cy=\"",
        " width=\"",
        " height=\"",
        " d=\"M",
    ];
    names
        .iter()
        .filter_map(|name| tag.split_once(name))
        .filter_map(|(_, after)| after.split('"').next())
        .flat_map(|value| value.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')))
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().unwrap())
        .collect()
}

fn count(svg: &str, what: &str) -> usize {
    svg.matches(what).count()
}

#[test]
fn a_line_has_its_band_axes_and_words() {
    let points = steady(60);
    let svg = plot(&points, FROM + 600).svg();
    check(&svg);
    assert_eq!((count(&svg, "class=\"l1\""), count(&svg, "class=\"b1\"")), (1, 1));
    for part in [
        "role=\"img\" aria-labelledby=\"ports-t ports-d\"",
        "<title id=\"ports-t\">Ports held</title>",
        "From 2023-11-14 22:13 UTC to 2023-11-14 22:23 UTC. held: between 40 ports and 70 ports, last 53 ports",
        ">ports</text>",
        ">time (UTC)</text>",
        ">22:15</text>",
        ">0</text>",
    ] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
}

#[test]
fn gaps_stay_gaps_and_a_lone_point_is_a_dot() {
    for (name, points, lines, dots, words) in [
        ("none", vec![], 0, 0, "no points"),
        ("one", vec![(FROM, 5.0, 5.0, 5.0)], 0, 1, "last 5 ports"),
        (
            "two runs",
            [
                steady(10),
                vec![(FROM + 300, 1.0, 1.0, 1.0), (FROM + 310, 1.0, 1.0, 1.0)],
            ]
            .concat(),
            2,
            0,
            "with a gap",
        ),
        (
            "a hole of two steps is none",
            [steady(3), vec![(FROM + 50, 1.0, 1.0, 1.0)]].concat(),
            1,
            0,
            "last 1 ports",
        ),
        (
            "out of order",
            steady(9).into_iter().rev().collect(),
            1,
            0,
            "last 51 ports",
        ),
        (
            "outside",
            vec![(FROM - 10, 1.0, 1.0, 1.0), (FROM + 601, 1.0, 1.0, 1.0)],
            0,
            0,
            "no points",
        ),
        (
            "no numbers",
            vec![(FROM, f64::NAN, 0.0, 1.0), (FROM + 10, f64::INFINITY, 0.0, 1.0)],
            0,
            0,
            "no points",
        ),
        (
            "a band that is none",
            vec![(FROM, 5.0, f64::NAN, f64::INFINITY)],
            0,
            1,
            "between 5 ports and 5 ports",
        ),
    ] {
        let svg = plot(&points, FROM + 600).svg();
        check(&svg);
        let found = (count(&svg, "class=\"l1\""), count(&svg, "class=\"d1\""));
        assert_eq!(found, (lines, dots), "{name}: {svg}");
        assert!(svg.contains(words), "{name}: {svg}");
    }
}

#[test]
fn a_limit_is_drawn_where_it_does_not_press_the_line_flat() {
    let points = steady(60);
    for (value, drawn, words) in [(100.0, 1, "limit 100<"), (28_232.0, 0, "limit 28.2k, far above<")] {
        let mut plot = plot(&points, FROM + 600);
        plot.limit = Some(Limit { name: "limit", value });
        let svg = plot.svg();
        check(&svg);
        assert_eq!(count(&svg, "class=\"limit\""), drawn, "{svg}");
        assert!(svg.contains(words), "{svg}");
    }
}

#[test]
fn a_forecast_is_dashed_has_its_interval_and_is_told() {
    let points = steady(60);
    let mut plot = plot(&points, FROM + 600);
    plot.limit = Some(Limit {
        name: "limit",
        value: 100.0,
    });
    let forecast = Forecast {
        from: FROM + 600,
        value: 55.0,
        reaches: 100.0,
        full: FROM + 720,
        soonest: FROM + 660,
        latest: FROM + 900,
    };
    plot.forecast = Some(forecast);
    let svg = plot.svg();
    check(&svg);
    assert_eq!(
        (
            count(&svg, "class=\"cone\""),
            count(&svg, "stroke-dasharray=\"3 3\"")
        ),
        (1, 2)
    );
    assert!(svg.contains("100 ports in 2 min (60 s to 5 min)"), "{svg}");
    assert!(svg.contains(">forecast</text>"), "{svg}");
    // What cannot be is not drawn.
    for wrong in [
        Forecast {
            full: FROM,
            ..forecast
        },
        Forecast {
            reaches: f64::NAN,
            ..forecast
        },
        Forecast {
            latest: FROM + 650,
            ..forecast
        },
    ] {
        plot.forecast = Some(wrong);
        assert_eq!(count(&plot.svg(), "class=\"future\""), 0, "{wrong:?}");
    }
}

#[test]
fn lines_differ_by_dash_and_further_ones_are_said() {
    let points = steady(60);
    let mut plot = plot(&points, FROM + 600);
    plot.lines = ["a", "b", "c", "d", "e"]
        .map(|name| Line {
            name,
            points: &points,
        })
        .into();
    let svg = plot.svg();
    check(&svg);
    for (line, dash) in [("l2", "6 3"), ("l3", "2 3"), ("l4", "9 3 2 3")] {
        assert_eq!(
            count(&svg, &format!("class=\"{line}\"")),
            2,
            "{line} and its legend"
        );
        assert_eq!(count(&svg, &format!("stroke-dasharray=\"{dash}\"")), 2, "{dash}");
    }
    assert!(svg.contains("1 more lines are not drawn"), "{svg}");
}

#[test]
fn times_are_round_in_both_ways_of_writing() {
    for (times, span, expected) in [
        (Times::Utc, 3600, vec!["22:15", "22:30", "22:45", "23:00"]),
        (
            Times::Before(FROM + 3600),
            3600,
            vec!["−60 min", "−45 min", "−30 min", "−15 min", "now"],
        ),
        (Times::Before(FROM + 600), 600, vec!["−10 min", "−5 min", "now"]),
        (
            Times::Before(FROM + 86_400),
            86_400,
            vec!["−24 h", "−18 h", "−12 h", "−6 h", "now"],
        ),
        (Times::Utc, 7 * 86_400, vec!["11-15", "11-17", "11-19", "11-21"]),
    ] {
        let ticks = times.ticks(FROM, FROM + span, 4);
        let found: Vec<String> = ticks.iter().map(|at| times.short(*at, span)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn values_have_few_round_lines() {
    for (least, greatest, unit, expected) in [
        (0.0, 0.0, Unit::Count("ports"), "0 1"),
        (0.0, 3.0, Unit::Count("ports"), "0 1 2 3"),
        (0.0, 28_231.0, Unit::Count("ports"), "0 10k 20k 30k"),
        (0.0, 1.0, Unit::Ratio, "0 % 25 % 50 % 75 % 100 %"),
        (0.0, 0.023, Unit::Seconds, "0 s 10 ms 20 ms 30 ms"),
        (-5.0, 5.0, Unit::PerSecond("entries"), "-5 -2.5 0 2.5 5"),
    ] {
        let found: Vec<String> = scale::Values::of(least, greatest, unit)
            .ticks()
            .map(|value| unit.short(value))
            .collect();
        assert_eq!(found.join(" "), expected);
    }
}

fn timeline<'a>(rows: Vec<Row<'a>>) -> Timeline<'a> {
    Timeline {
        id: "peers",
        title: "Handshakes",
        times: Times::Before(FROM + 600),
        from: FROM,
        to: FROM + 600,
        states: [(State::Good, "session"), (State::Bad, "none")],
        shapes: [
            (Shape::Tick, "handshake"),
            (Shape::Cross, "unanswered"),
            (Shape::Diamond, "moved"),
        ],
        rows,
    }
}

fn mark(at: i64) -> Mark<'static> {
    Mark {
        at,
        label: "something".into(),
    }
}

#[test]
fn a_timeline_tells_states_and_marks_by_shape_and_in_words() {
    let svg = timeline(vec![Row {
        name: "wg0 Igge9K",
        spans: vec![
            Span {
                from: FROM,
                to: FROM + 300,
                state: State::Good,
            },
            Span {
                from: FROM + 300,
                to: FROM + 600,
                state: State::Bad,
            },
        ],
        marks: vec![
            (Shape::Tick, mark(FROM + 10)),
            (Shape::Tick, mark(FROM + 130)),
            (Shape::Cross, mark(FROM + 400)),
            (Shape::Diamond, mark(FROM + 600)),
            (Shape::Diamond, mark(FROM + 601)),
        ],
    }])
    .svg();
    check(&svg);
    // One each is the legend's.
    for (class, n) in [("tick", 3), ("cross", 2), ("diamond", 2), ("good", 2), ("bad", 2)] {
        assert_eq!(count(&svg, &format!("class=\"{class}\"")), n, "{class}: {svg}");
    }
    let words = "wg0 Igge9K: session in 1 stretch; none in 1 stretch; handshake: 2, the last 7 min ago; unanswered: 1, \
                 the last 3 min ago; moved: 1, the last now.";
    assert!(svg.contains(words), "{svg}");
}

#[test]
fn much_is_bounded() {
    let many: Vec<Point> = (0..100_000)
        .map(|i| (FROM + i, (i % 100) as f64, 0.0, 100.0))
        .collect();
    let svg = plot(&many, FROM + 100_000).svg();
    check(&svg);
    assert!(svg.len() < 16_384, "{}", svg.len());
    let mut torn = plot(&many, FROM + 100_000);
    let single: Vec<Point> = (0..5_000).map(|i| (FROM + i * 20, 1.0, 1.0, 1.0)).collect();
    torn.lines = vec![Line {
        name: "torn",
        points: &single,
    }];
    torn.step = 1;
    torn.marks = (0..5_000).map(|i| mark(FROM + i)).collect();
    let svg = torn.svg();
    check(&svg);
    assert!(count(&svg, "<circle") <= POINTS, "{}", count(&svg, "<circle"));
    assert_eq!(count(&svg, "<g>"), MARKS);
    let row = Row {
        name: "peer",
        spans: (0..5_000)
            .map(|i| Span {
                from: FROM + i / 10,
                to: FROM + i / 10,
                state: State::Bad,
            })
            .collect(),
        marks: (0..5_000).map(|i| (Shape::Tick, mark(FROM + i / 10))).collect(),
    };
    let svg = timeline(vec![row; 100]).svg();
    check(&svg);
    assert_eq!(count(&svg, "<g>"), ROWS * MARKS);
    assert_eq!(count(&svg, "class=\"bad\""), ROWS * SPANS + 1);
    assert!(svg.contains("80 more rows are not drawn"));
}

proptest! {
    #[test]
    fn any_series_any_text_and_any_time_make_a_sound_picture(
        points in prop::collection::vec((any::<i64>().prop_map(|n| FROM + n % 5_000), any::<f64>(), any::<f64>(), any::<f64>()), 0..400),
        (from, to) in prop_oneof![Just((FROM, FROM + 3_600)), (any::<i64>(), any::<i64>())],
        step in any::<i64>(),
        text in ".{0,60}",
        limit in any::<f64>(),
        (value, reaches) in (any::<f64>(), any::<f64>()),
        (start, full, soonest, latest) in (any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>()),
        unit in prop_oneof![Just(Unit::Count("ports")), Just(Unit::Ratio), Just(Unit::Seconds), Just(Unit::Bytes), Just(Unit::PerSecond("x"))],
        times in prop_oneof![Just(Times::Utc), any::<i64>().prop_map(Times::Before), Just(Times::Before(FROM + 3_600))],
    ) {
        let text = format!("{text}</title>\"><script>alert(1)</script>");
        let plot = Plot {
            id: &text,
            title: &text,
            unit,
            times,
            from,
            to,
            step,
            lines: vec![Line { name: &text, points: &points }, Line { name: "b", points: &points }],
            limit: Some(Limit { name: &text, value: limit }),
            forecast: Some(Forecast { from: start, value, reaches, full, soonest, latest }),
            marks: points.iter().map(|p| Mark { at: p.0, label: text.as_str().into() }).collect(),
        };
        check(&plot.figure());
        let spans = points.iter().map(|p| Span { from: p.0, to: p.0.saturating_add(step), state: State::Good }).collect();
        let marks = points.iter().map(|p| (Shape::Cross, Mark { at: p.0, label: text.as_str().into() })).collect();
        let mut line = timeline(vec![Row { name: &text, spans, marks }]);
        (line.id, line.title, line.times, line.from, line.to) = (&text, &text, times, from, to);
        check(&line.svg());
    }

    #[test]
    fn drawing_together_keeps_the_least_the_greatest_and_the_gaps(
        values in prop::collection::vec(0.0..1000.0_f64, 300..3000),
        hole in 100..200_usize,
    ) {
        let points: Vec<Point> = values
            .iter()
            .enumerate()
            .filter(|(i, _)| !(hole..hole + 60).contains(i))
            .map(|(i, v)| (FROM + i64::try_from(i).unwrap() * 10, *v, v - 1.0, v + 1.0))
            .collect();
        let to = FROM + i64::try_from(values.len()).unwrap() * 10;
        let runs = data::runs(&points, FROM, to, 10);
        prop_assert!(runs.iter().map(Vec::len).sum::<usize>() <= POINTS);
        prop_assert_eq!(runs.len(), 2);
        let least = |f: fn(f64, f64) -> f64, of: &dyn Fn(&Point) -> f64, all: &[Point]| all.iter().map(of).reduce(f).unwrap();
        let drawn: Vec<Point> = runs.concat();
        prop_assert_eq!(least(f64::min, &|p| p.2, &drawn), least(f64::min, &|p| p.2, &points));
        prop_assert_eq!(least(f64::max, &|p| p.3, &drawn), least(f64::max, &|p| p.3, &points));
        prop_assert!(drawn.iter().all(|p| p.2 <= p.1 && p.1 <= p.3));
    }
}
