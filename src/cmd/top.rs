//! `wgnat top`: the live view. Reads the keyboard and the observers, and draws.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{DefaultTerminal, Terminal, backend::CrosstermBackend};

use super::{colour, observers, utf8_locale};
use crate::cli::Top;
use crate::config::Settings;
use crate::engine::{Engine, Step};
use crate::observation::Source;
use crate::rules::{self, Input as Facts};
use crate::sys::clock;
use crate::sys::netns::Netns;
use crate::time::Span;
use crate::track::World;
use crate::tui::model::Model;
use crate::tui::view::{self, Look};
use crate::tui::{Key, Snapshot};
use crate::{report, rules::ports};

/// How often the tables are made anew.
const REFRESH: Span = Span::from_secs(1);

/// Observations that are taken in between two looks at the keyboard.
const STEPS: usize = 8192;

/// How long to wait for a key before observers are heard again. Their queue holds 4,096 observations.
const WAIT: Span = Span::from_millis(100);

/// Runs the command.
pub fn run(args: &Top, settings: &Settings) -> anyhow::Result<u8> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!(
            "top draws on a terminal, and standard input or output is none; for a file or a pipe use `wgnat doctor`"
        );
    }
    if std::env::var("TERM").is_ok_and(|term| term == "dumb") {
        bail!("top draws on the whole screen, which this terminal cannot (TERM=dumb); use `wgnat doctor`");
    }
    let configured = observers::read_wg_configs(&settings.wg_config)?;
    let netns = args.netns.as_deref().map(Netns::open).transpose()?;
    if let Some(netns) = &netns {
        // Before any thread is started: each inherits the namespace of the one that starts it.
        netns.enter()?;
    }
    let mut observers = observers::all(args.netns.clone(), configured);
    if args.no_bpf {
        observers.retain(|(source, _)| *source != Source::Bpf);
    }
    let look = Look {
        color: colour(settings.color, &io::stdout()),
        unicode: utf8_locale(),
    };
    let world = World::new(clock::now());
    let engine = Engine::start_for_good(observers);
    observers::on_interrupt(engine.interrupter())?;
    let mut screen = Screen::open()?;
    Live {
        engine,
        world,
        settings,
        model: Model::default(),
        refreshed: None,
    }
    .run(&mut screen, look)?;
    Ok(0)
}

/// The terminal in the state that a full screen needs. Dropping it, and a panic, give it back as it was.
pub struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal. Called once: a hook for panics stays.
    pub fn open() -> anyhow::Result<Self> {
        let hook = std::panic::take_hook();
        let drawing = std::thread::current().id();
        std::panic::set_hook(Box::new(move |panic| {
            // An observer that fails is told as one of the sources; only the end of this thread ends the view.
            if std::thread::current().id() == drawing {
                restore();
                hook(panic);
            }
        }));
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode().context("the terminal cannot be set to tell each key")?;
        let opened = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match opened {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                restore();
                Err(error).context("the terminal cannot be drawn on")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether the terminal is ours. To give it back twice would put the cursor where it was at first, onto what was written since.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whatever fails of it, the rest is still worth doing, and there is nobody to tell.
fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = disable_raw_mode();
    let _ = execute!(
        io::stdout(),
        LeaveAlternateScreen,
        ratatui::crossterm::cursor::Show
    );
}

struct Live<'a> {
    engine: Engine,
    world: World,
    settings: &'a Settings,
    model: Model,
    refreshed: Option<Instant>,
}

impl Live<'_> {
    fn run(mut self, screen: &mut Screen, look: Look) -> anyhow::Result<()> {
        let mut draw = true;
        while !self.model.quit() && !self.engine.interrupted() {
            self.hear();
            draw |= self.refresh();
            if std::mem::take(&mut draw) {
                screen
                    .0
                    .draw(|frame| view::draw(frame, &mut self.model, look))
                    .context("drawing on the terminal")?;
            }
            draw = self.keys()?;
        }
        Ok(())
    }

    /// Takes in what the observers have told, and asks for what would tell more.
    fn hear(&mut self) {
        // Whatever a flood brings, keys are heard in between.
        for _ in 0..STEPS {
            match self.engine.wait(Span::ZERO) {
                Step::Seen(observation) => {
                    self.world.apply(&observation);
                    for request in self.world.requests_after(&observation) {
                        self.engine.ask(request);
                    }
                }
                Step::Moved => {}
                // Where all observers have ended, what is known stays on the screen, and Sources says why.
                Step::Quiet | Step::Over => return,
            }
        }
    }

    /// A new snapshot each second, and the first as soon as there is something to see.
    fn refresh(&mut self) -> bool {
        let due = match self.refreshed {
            None => self.engine.can_tell(),
            Some(at) => clock::instant() - at >= REFRESH,
        };
        if !due {
            return false;
        }
        self.refreshed = Some(clock::instant());
        let now = clock::now().max(self.world.now);
        self.world.handle_timeout(now);
        let world = &self.world;
        let catalogue: Vec<_> = rules::registry::rules().collect();
        let facts = Facts {
            world,
            thresholds: &self.settings.thresholds,
        };
        let evaluation = rules::evaluate(&catalogue, &facts);
        let advice = ports::advice(&facts);
        let snapshot = Snapshot {
            report: report::build::build(world, evaluation, env!("CARGO_PKG_VERSION")),
            advice,
            looking: !self.engine.has_looked(),
        };
        self.model.look(snapshot);
        true
    }

    /// Waits a moment for keys; true where something is to be drawn anew.
    fn keys(&mut self) -> anyhow::Result<bool> {
        let mut draw = false;
        let mut wait = WAIT;
        while event::poll(wait).context("reading the keyboard")? {
            match event::read().context("reading the keyboard")? {
                Input::Key(key) if key.kind != KeyEventKind::Release => {
                    if let Some(key) = meaning(key) {
                        self.model.press(key);
                        draw = true;
                    }
                }
                Input::Resize(..) => draw = true,
                _ => {}
            }
            if self.model.quit() {
                break;
            }
            // Those that are there already are taken together.
            wait = Span::ZERO;
        }
        Ok(draw)
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(key.code, KeyCode::Char('c' | 'C')).then_some(Key::Interrupt);
    }
    Some(match key.code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        _ => return None,
    })
}
