"""Asks a `salmon serve` with real clients; a line for each thing that holds, a traceback for the first that does not."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import psycopg
import pyarrow
from adbc_driver_flightsql import DatabaseOptions

SECRET = "clients-secret-0123456789"
WORK = Path(os.environ["CLIENTS_WORK"])
ROWS = 10_000_000


def holds(what):
    print(f"ok  {what}", flush=True)


@contextmanager
def server(run):
    """Addresses by protocol of a server over the run, and its process."""
    tokens = WORK / "tokens.toml"
    tokens.write_text(f'[[token]]\nname = "clients"\nsecret = "{SECRET}"\nseconds = 60\n')
    command = [os.environ["SALMON"], "serve", "--run", run, "--token-file", tokens, "--memory", "512"]
    for protocol in ("--flight", "--postgres", "--http"):
        command += [protocol, "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield dict(process.stdout.readline().split() for _ in range(3)), process
    finally:
        process.terminate()
        process.wait(15)


def peak(process):
    """MiB of memory that the process has held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def adbc(address, process):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {SECRET}"}
    with flightsql.connect(f"grpc://{address}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select kind, count(*) as n from prompts group by kind order by kind")
            table = cursor.fetch_arrow_table()
            assert table.column_names == ["kind", "n"] and table.num_rows > 0, table
            holds(f"ADBC: a statement as an Arrow table, {table.num_rows} rows")
            cursor.execute("select count(*) from prompts where kind = ? and length_bonus > ?", ("general", -10.0))
            assert cursor.fetchone()[0] > 0
            holds("ADBC: a prepared statement with two values")
            try:
                cursor.execute("drop table prompts")
                cursor.fetchall()
                raise AssertionError("a table was dropped")
            except adbc_driver_manager.Error as error:
                assert "only queries are allowed" in str(error), error
            holds("ADBC: a statement that writes is refused")
        objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
        names = [t["table_name"] for c in objects for s in c["catalog_db_schemas"] for t in s["db_schema_tables"]]
        assert "judgments" in names, names
        holds(f"ADBC: {len(names)} tables and views are listed")
        assert connection.adbc_get_table_schema("judgments").names[0] == "prompt_id"
        assert connection.adbc_get_info()["vendor_name"] == "salmon"
        holds("ADBC: the schema of a table, and what the server says of itself")
        before, began, rows = peak(process), time.monotonic(), 0
        with connection.cursor() as cursor:
            cursor.execute(f"select value, value * 2 as twice, cast(value as double) as real from generate_series(1, {ROWS})")
            for batch in cursor.fetch_record_batch():
                rows += batch.num_rows
        assert rows == ROWS, rows
        took, grown = time.monotonic() - began, peak(process) - before
        assert grown < 200, f"{grown} MiB"
        holds(f"ADBC: {rows} rows streamed in {took:.1f} s; the server's peak grew by {grown} MiB")
        with connection.cursor() as cursor:
            timer = threading.Timer(1, cursor.adbc_cancel)
            timer.start()
            began = time.monotonic()
            try:
                cursor.execute("select count(*) from generate_series(1, 2000000000) a, generate_series(1, 1000) b")
                cursor.fetchall()
                raise AssertionError("it was not cancelled")
            except (adbc_driver_manager.Error, pyarrow.lib.ArrowException, OSError):
                assert time.monotonic() - began < 10
            holds("ADBC: a query is cancelled")
    basic = {"username": "clients", "password": SECRET}
    with flightsql.connect(f"grpc://{address}", db_kwargs=basic, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
    holds("ADBC: name and password")


def postgres(address):
    host, port = address.split(":")
    url = f"host={host} port={port} user=clients password={SECRET} dbname=salmon"
    with psycopg.connect(url) as connection:
        rows = connection.execute("select kind, count(*) from prompts where length_bonus > %s group by kind order by kind", (-10,)).fetchall()
        assert rows, rows
        holds(f"psycopg: values in a transaction, {len(rows)} rows")
        with connection.cursor(binary=True) as cursor:
            found = cursor.execute("select prompt_id, length_bonus, sets from prompts, (select sets from principles limit 1) limit 1").fetchone()
            assert isinstance(found[1], float) and isinstance(found[2], list), found
        holds("psycopg: binary rows, doubles and lists")
        with connection.cursor("pieces") as cursor:
            try:
                cursor.execute("select 1")
            except psycopg.errors.ReadOnlySqlTransaction:
                holds("psycopg: a server-side cursor (DECLARE) is refused")
        connection.rollback()
        try:
            connection.execute("copy prompts to stdout")
            raise AssertionError("COPY went through")
        except psycopg.errors.ReadOnlySqlTransaction:
            holds("psycopg: COPY is refused")
        connection.rollback()
        threading.Timer(1, connection.cancel_safe).start()
        try:
            connection.execute("select count(*) from generate_series(1, 2000000000) a, generate_series(1, 1000) b")
            raise AssertionError("it was not cancelled")
        except psycopg.errors.QueryCanceled:
            holds("psycopg: a query is cancelled")
    if not shutil.which("psql"):
        print("--  psql is not on this machine")
        return
    for command, wanted in [
        ("\\d", "judgments"),
        ("\\dt", "judgments"),
        ("\\dv", "query_log"),
        ("\\d judgments", "score_ab"),
        ("\\dn", "public"),
        ("\\l", "salmon"),
        ("select count(*) from judgments", "count"),
    ]:
        done = subprocess.run(["psql", url, "-X", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and wanted in done.stdout, f"psql {command}: {done.stdout}{done.stderr}"
        holds(f"psql: {command}")


def hundred_at_once(address):
    """p50 and p99 of a small query, each of 100 clients asking 10 times."""
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {SECRET}"}
    times, failures = [], []

    def ask():
        try:
            with flightsql.connect(f"grpc://{address}", db_kwargs=options, autocommit=True) as connection:
                for _ in range(10):
                    began = time.monotonic()
                    with connection.cursor() as cursor:
                        cursor.execute("select principle, count(*) from judgments group by principle")
                        cursor.fetchall()
                    times.append(time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            failures.append(error)

    clients = [threading.Thread(target=ask) for _ in range(100)]
    began = time.monotonic()
    [client.start() for client in clients]
    [client.join() for client in clients]
    assert not failures, failures[0]
    times.sort()
    middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
    rate = len(times) / (time.monotonic() - began)
    holds(f"100 ADBC clients at once: {len(times)} queries, p50 {middle * 1000:.0f} ms, p99 {late * 1000:.0f} ms, {rate:.0f}/s")


def page(address):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        print("--  there is no Chromium on this machine (Debian: apt-get install chromium)")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 900})
        complaints = []
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        elsewhere = []
        tab.on("request", lambda request: elsewhere.append(request.url) if not request.url.startswith((f"http://{address}/", "data:")) else None)
        tab.goto(f"http://{address}/")
        tab.fill("#token", "wrong-secret-0123456789")
        tab.click("#login button")
        tab.wait_for_selector("#problem:not([hidden])")
        assert tab.is_visible("#login"), "a wrong token got in"
        # The browser itself complains of the refusal.
        complaints.clear()
        tab.fill("#token", SECRET)
        tab.click("#login button")
        tab.wait_for_selector("#run-list table tbody tr")
        tab.click("#run-list button:text-is('preferences')")
        tab.wait_for_selector("#lineage svg rect")
        tab.screenshot(path=WORK / "page-runs.png", full_page=True)
        holds("page: token, runs, lineage")
        tab.click("nav a[href='#query']")
        tab.wait_for_selector("#tables details")
        tab.click("#ask button[type=submit]")
        tab.wait_for_selector("#result table tbody tr")
        tab.wait_for_selector("#chart svg rect")
        tab.screenshot(path=WORK / "page-query.png", full_page=True)
        tab.fill("#sql", "select '<img src=x onerror=alert(1)>' as markup")
        tab.press("#sql", "Control+Enter")
        tab.wait_for_selector("#result td:has-text('onerror')")
        assert tab.locator("#result img").count() == 0
        tab.fill("#sql", "drop table prompts")
        tab.press("#sql", "Control+Enter")
        tab.wait_for_selector("#problem:has-text('only queries are allowed')")
        complaints[:] = [text for text in complaints if "403" not in text]
        tab.fill("#sql", "select count(*) from generate_series(1, 2000000000) a, generate_series(1, 1000) b")
        tab.press("#sql", "Control+Enter")
        tab.click("#cancel:not([disabled])")
        tab.wait_for_selector("#status:has-text('cancelled')")
        holds("page: a query with its result and chart, markup as text, a refusal, cancelling")
        tab.click("nav a[href='#rollouts']")
        tab.wait_for_selector("#rollout-list article")
        tab.screenshot(path=WORK / "page-rollouts.png", full_page=True)
        tab.click("nav a[href='#judgments']")
        tab.wait_for_selector("#judgment-list svg rect")
        tab.screenshot(path=WORK / "page-judgments.png", full_page=True)
        holds("page: rollouts and judgments side by side")
        tab.click("#leave")
        assert tab.evaluate("sessionStorage.length") == 0
        assert not complaints, complaints
        assert not elsewhere, elsewhere
        holds(f"page: no complaint of the browser, nothing from elsewhere; screenshots in {WORK}")
        chromium.close()


with server(sys.argv[1]) as (addresses, process):
    adbc(addresses["flight"], process)
    postgres(addresses["postgres"])
    hundred_at_once(addresses["flight"])
    page(addresses["http"])
    began = time.monotonic()
    process.terminate()
    process.wait(15)
    assert process.returncode == 0, process.returncode
    holds(f"SIGTERM: the server ended in {time.monotonic() - began:.1f} s")
