//! Answers one statement, and can be stopped while it does.
//!
//! In: a statement and the settings. Out: its rows, written. The query runs as a task of its own, so that ctrl-c ends it
//! wherever it is: dropping its stream drops the requests that models work on.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{Format, Look, Written, write_rows};
use super::settings::Settings;
use super::target::Target;
use super::{external, pager};
use crate::catalog::{Catalog, Estimate};
use crate::{Error, Result};

/// A query shorter than this shows no progress.
const QUIET: Duration = Duration::from_millis(700);
/// How often progress is drawn.
const TICK: Duration = Duration::from_millis(150);

/// A session that statements are asked in.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) catalog: Catalog,
    pub(super) session: SessionContext,
}

/// What of a running query can be watched.
type Watched = Arc<Mutex<Option<Arc<dyn ExecutionPlan>>>>;

/// A query that is planned.
struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    /// What models will have to do.
    estimate: Estimate,
}

impl Asker {
    pub(super) fn new(catalog: Catalog) -> Result<Self> {
        let session = catalog.session()?;
        Ok(Asker { catalog, session })
    }

    /// Answers one statement.
    ///
    /// # Errors
    /// A query error, also when it was stopped or asks models for more rows than it may; a store error where the rows
    /// cannot be written.
    pub(super) async fn ask(&self, statement: &str, settings: &Settings) -> Result<Written> {
        let (asker, text, given) = (self.clone(), statement.to_string(), settings.clone());
        let plan = async move { asker.plan(&text, &given).await };
        let Some(planned) = stoppable(plan, &Watched::default()).await? else { return Ok(Written::default()) };
        guard(&planned.estimate, settings)?;
        let watched = Watched::new(Mutex::new(Some(Arc::clone(&planned.plan))));
        let (settings, seen) = (settings.clone(), Arc::clone(&watched));
        stoppable(async move { planned.run(&settings, &seen).await }, &watched).await
    }

    /// The plan of a query; `None` for a statement that defines something, which is done then.
    async fn plan(&self, statement: &str, settings: &Settings) -> Result<Option<Planned>> {
        let plan = self.catalog.plan(&self.session, statement, &settings.params).await?;
        external::allow(&self.session, &plan)?;
        let defines = matches!(plan, LogicalPlan::Ddl(_));
        let frame = self.catalog.begin(&self.session, plan).await?;
        if defines {
            return Ok(None);
        }
        let task = Arc::new(frame.task_ctx());
        let plan = frame.create_physical_plan().await?;
        let estimate = match settings.model_rows {
            0 => Estimate::default(),
            _ => self.catalog.estimate(&plan, &task).await?,
        };
        Ok(Some(Planned { plan, task, estimate }))
    }
}

impl Planned {
    async fn run(self, settings: &Settings, watched: &Watched) -> Result<Written> {
        let rows = execute_stream(self.plan, self.task)?;
        let terminal = std::io::stdout().is_terminal();
        match &settings.output {
            Some(path) => {
                let all = Look { max_rows: 0, ..settings.look };
                let mut target = Target::open(path)?;
                let written = write_rows(rows, settings.format, all, &mut target).await?;
                target.keep()?;
                Ok(written)
            }
            None if settings.format == Format::Parquet && terminal => {
                Err(Error::config("--format parquet", "is nothing for a terminal; give a file with -o"))
            }
            None if settings.format == Format::Table && settings.pager && terminal => {
                let mut text = Vec::new();
                let written = write_rows(rows, settings.format, settings.look, &mut text).await?;
                watched.lock().unwrap_or_else(PoisonError::into_inner).take();
                pager::show(&text)?;
                Ok(written)
            }
            None => write_rows(rows, settings.format, settings.look, &mut std::io::stdout()).await,
        }
    }
}

/// Asks whether models may see so many rows, or says how to allow it.
fn guard(estimate: &Estimate, settings: &Settings) -> Result<()> {
    if settings.model_rows == 0 || estimate.within(settings.model_rows) {
        return Ok(());
    }
    if settings.interactive {
        eprint!("{estimate}. Go on? [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        if read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
            return Ok(());
        }
        return Err(Error::query("query", "not run"));
    }
    let problem =
        format!("{estimate}; that is more than --model-rows {}: raise it, or 0 for any number", settings.model_rows);
    Err(Error::query("query", problem))
}

/// Runs `work` as a task of its own until it is done or somebody presses ctrl-c.
async fn stoppable<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    watched: &Watched,
) -> Result<T> {
    let mut task = tokio::spawn(work);
    let mut progress = Progress::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            done = &mut task => {
                progress.clear();
                return done.map_err(|e| Error::internal("query", "ended early").because(e))?;
            }
            _ = tokio::signal::ctrl_c() => {
                // Its stream is dropped, and with it whatever models and stores were asked.
                task.abort();
                progress.clear();
                return Err(Error::query("query", "stopped"));
            }
            _ = tick.tick() => progress.draw(watched),
        }
    }
}

/// What a query has done so far, on a terminal.
struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Progress {
    fn new() -> Self {
        Progress { bar: None, began: Instant::now() }
    }

    fn draw(&mut self, watched: &Watched) {
        let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nothing to watch while a pager has the terminal.
        let Some(plan) = watched.as_ref().filter(|_| self.began.elapsed() > QUIET) else { return self.clear() };
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}  (ctrl-c stops it)");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        let mut done = Done::default();
        done.count(plan);
        let time = [format!("{:.0} s", self.began.elapsed().as_secs_f64())];
        let answered = done.answered.iter().map(|(what, rows)| format!("{what}: {rows} rows answered"));
        let read = (done.read > 0).then(|| format!("{} rows read", done.read));
        bar.set_message(time.into_iter().chain(read).chain(answered).collect::<Vec<_>>().join(", "));
        bar.tick();
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Rows that the parts of a plan have given so far.
#[derive(Default)]
struct Done {
    read: usize,
    answered: Vec<(String, usize)>,
}

impl Done {
    fn count(&mut self, plan: &Arc<dyn ExecutionPlan>) {
        let rows = plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0);
        let inputs = plan.children();
        if inputs.is_empty() {
            self.read += rows;
        }
        if let Some(name) = crate::query::model_call(plan.as_ref()) {
            self.answered.push((name, rows));
        }
        inputs.into_iter().for_each(|input| self.count(input));
    }
}
