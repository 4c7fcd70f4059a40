"""TensorBoard's reader gives the numbers of table metrics, and transformers reads trainer_state.json."""

from shared import RUNS, claim, exported, sql
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerState

for run in RUNS:
    stages = [row["stage"] for row in sql(run, "select distinct stage from metrics order by stage")]
    for stage in stages:
        folder = exported(run, "metrics") / stage.replace(":", "/")
        rows = sql(run, f"select step, name, value from metrics where stage = '{stage}' order by step, name")
        with claim(f"{run}: TensorBoard reads the curves of {stage}") as notes:
            reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
            reader.Reload()
            tags = reader.Tags()["scalars"]
            events = {(event.step, tag): event for tag in tags for event in reader.Scalars(tag)}
            assert len(events) == len(rows) > 0, f"{len(events)} events, {len(rows)} rows"
            for row in rows:
                found, wanted = events[row["step"], f"train/{row['name']}"].value, row["value"]
                assert abs(found - wanted) <= 1e-6 * max(1.0, abs(wanted)), f"{row}: {found}"
            times = [events[key].wall_time for key in sorted(events)]
            assert times == sorted(times) and times[0] > 1.7e9, "times go back"
            notes.append(f"{len(tags)} tags, {len(events)} numbers")
        with claim(f"{run}: transformers reads trainer_state.json of {stage}") as notes:
            state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
            logged = {(log["step"], name): log[name] for log in state.log_history for name in log if name != "step"}
            assert logged == {(row["step"], row["name"]): row["value"] for row in rows}, "other numbers"
            assert state.global_step == max(row["step"] for row in rows), state.global_step
            notes.append(f"{len(state.log_history)} logs")
