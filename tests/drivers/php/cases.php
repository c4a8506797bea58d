<?php
// PHP's PDO with pdo_pgsql: named prepared statements, and DEALLOCATE for each that goes.
// SPDX-License-Identifier: Apache-2.0
declare(strict_types=1);

$own = [];

function test(string $name, bool $two, callable $run): void
{
    global $own;
    $own[] = [$name, $two, $run];
}

function open(array $options = [], array $attributes = []): PDO
{
    $dsn = sprintf(
        "pgsql:host=%s;port=%s;dbname=%s;sslmode=verify-full;sslrootcert=%s;connect_timeout=20",
        getenv("PGHOST"), getenv("PGPORT"), getenv("PGDATABASE"), getenv("PGSSLROOTCERT")
    );
    foreach ($options as $k => $v) {
        $dsn .= ";$k='$v'";
    }
    return new PDO($dsn, getenv("PGUSER"), getenv("PGPASSWORD"), $attributes + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

function error(Throwable $e): string
{
    $text = preg_replace('/connection to server at .*? failed: /', '', explode("\n", $e->getMessage())[0]);
    return "!" . $text;
}

function show($v): string
{
    if (is_resource($v)) {
        return "stream:" . bin2hex(stream_get_contents($v));
    }
    return $v === null ? "NULL" : (is_string($v) ? $v : var_export($v, true));
}

function rows(PDOStatement $s): string
{
    $out = "(";
    for ($i = 0; $i < $s->columnCount(); $i++) {
        $m = $s->getColumnMeta($i);
        $out .= ($i ? "," : "") . $m["name"] . ":" . ($m["native_type"] ?? "");
    }
    $out .= ")" . $s->rowCount();
    if ($s->columnCount() > 0) {
        foreach ($s->fetchAll(PDO::FETCH_NUM) as $row) {
            $out .= "[" . implode(",", array_map('show', $row)) . "]";
        }
    }
    return $out;
}

function run(PDO $c, string $sql): string
{
    return rows($c->query($sql));
}

/* A connection's statements; each holds its connection open, so they go before it. */
$kept = [];

function arg(PDO $c, string $sql, array $values): string
{
    global $kept;
    $mine = &$kept[spl_object_id($c)];
    $mine[$sql] ??= $c->prepare(preg_replace('/\$\d+/', '?', $sql));
    $mine[$sql]->execute($values);
    return rows($mine[$sql]);
}

function forget(PDO $c): void
{
    global $kept;
    unset($kept[spl_object_id($c)]);
}

function failing(callable $f): string
{
    try {
        return show($f());
    } catch (Throwable $e) {
        return error($e);
    }
}

function cut(string $s, string $by): array
{
    return array_pad(explode($by, $s, 2), 2, "");
}

function steps(array $lines): array
{
    $out = [];
    $open = [];
    foreach ($lines as $line) {
        $times = 1;
        [$verb, $rest] = cut($line, " ");
        if ($verb === "times") {
            [$times, $rest] = cut($rest, " ");
            [$verb, $rest] = cut($rest, " ");
        }
        [$name, $text] = cut($rest, " ");
        $values = [];
        if ($verb === "arg") {
            [$text, $tail] = cut($text, " <-");
            $values = array_map('trim', explode("|", $tail));
        }
        $last = null;
        $count = 0;
        for ($i = 0; $i <= (int) $times; $i++) {
            $result = null;
            if ($i < (int) $times) {
                try {
                    if ($verb === "open") {
                        $options = [];
                        foreach (explode(";;", $text) as $pair) {
                            if (trim($pair) !== "") {
                                [$k, $v] = cut(trim($pair), "=");
                                $options[$k] = $v;
                            }
                        }
                        if (isset($open[$name])) {
                            forget($open[$name]);
                        }
                        $open[$name] = open($options);
                        $result = "+";
                    } elseif (!isset($open[$name])) {
                        $result = "(not connected)";
                    } elseif ($verb === "close") {
                        forget($open[$name]);
                        unset($open[$name]);
                        gc_collect_cycles();
                        $result = "-";
                    } else {
                        $result = $verb === "run" ? run($open[$name], $text) : arg($open[$name], $text, $values);
                    }
                } catch (Throwable $e) {
                    $result = error($e);
                }
                if ($result === $last) {
                    $count++;
                    continue;
                }
            }
            if ($last !== null) {
                $out[] = $count === 1 ? $last : "$last x$count";
            }
            $last = $result;
            $count = 1;
        }
    }
    foreach ($open as $c) {
        forget($c);
    }
    unset($c);
    $open = [];
    gc_collect_cycles();
    return $out;
}

test("types round trip", false, function () {
    $out = [];
    foreach ([false, true] as $emulate) {
        $c = open([], [PDO::ATTR_EMULATE_PREPARES => $emulate]);
        foreach ([["text", "it's ü 世界😀"], ["int8", "1152921504606846976"], ["numeric", "12345.678901234567890"], ["bool", "true"],
                     ["float8", "1.25"], ["int[]", "{1,2,NULL}"], ["jsonb", '{"k": [1]}'], ["text", null],
                     ["timestamptz", "2024-02-29 12:34:56.789+00"]] as [$type, $v]) {
            $s = $c->prepare("SELECT ?::$type AS v");
            $out[] = failing(function () use ($s, $v) {
                $s->execute([$v]);
                return rows($s);
            });
        }
        $s = $c->prepare("SELECT ?::bytea AS v");
        $s->bindValue(1, "\x00\x01\xff", PDO::PARAM_LOB);
        $s->execute();
        $out[] = rows($s);
    }
    return $out;
});

test("named parameters, many executions", false, function () {
    $c = open();
    $s = $c->prepare("SELECT :a::int + :b::int AS s");
    $out = [];
    for ($i = 0; $i < 12; $i++) {
        $s->execute(["a" => $i, "b" => 1]);
        $out[] = $s->fetchColumn();
    }
    $out[] = failing(fn () => $s->execute(["a" => "x", "b" => 1]));
    $s->execute(["a" => 40, "b" => 2]);
    $out[] = $s->fetchColumn();
    return $out;
});

test("statements that go send DEALLOCATE", false, function () {
    $c = open();
    $out = [];
    for ($i = 0; $i < 30; $i++) {
        $s = $c->prepare("SELECT $i + ?::int");
        $s->execute([1]);
        $out[] = $s->fetchColumn();
        $s = null;
    }
    $out[] = run($c, "SELECT 'on'");
    return $out;
});

test("statement that goes in a failed transaction", false, function () {
    $c = open();
    $s = $c->prepare("SELECT 1/?::int");
    $s->execute([1]);
    $c->beginTransaction();
    $out = [failing(fn () => $s->execute([0]))];
    $s = null;
    $out[] = failing(fn () => run($c, "SELECT 1"));
    $c->rollBack();
    $out[] = run($c, "SELECT 'on'");
    return $out;
});

test("300 prepared statements", false, function () {
    $c = open();
    $all = [];
    $sum = 0;
    for ($i = 0; $i < 300; $i++) {
        $all[$i] = $c->prepare("SELECT $i + ?::int");
    }
    for ($round = 0; $round < 2; $round++) {
        foreach ($all as $s) {
            $s->execute([1]);
            $sum += (int) $s->fetchColumn();
        }
    }
    return [$sum];
});

test("DISABLE_PREPARES", false, function () {
    $c = open([], [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]);
    $out = [];
    foreach ([1, 0, 2] as $v) {
        $out[] = failing(function () use ($c, $v) {
            $s = $c->prepare("SELECT 10 / ?::int");
            $s->execute([$v]);
            return $s->fetchColumn();
        });
    }
    return $out;
});

test("transactions of the driver", false, function () {
    $c = open();
    $c->exec("DROP TABLE IF EXISTS t_php");
    $c->exec("CREATE TABLE t_php (id int PRIMARY KEY)");
    $out = [];
    $c->beginTransaction();
    $out[] = $c->exec("INSERT INTO t_php VALUES (1), (2)");
    $out[] = failing(fn () => $c->exec("INSERT INTO t_php VALUES (1)"));
    $out[] = var_export($c->inTransaction(), true);
    $c->rollBack();
    $out[] = run($c, "SELECT count(*) FROM t_php");
    $c->beginTransaction();
    $c->exec("INSERT INTO t_php VALUES (3)");
    $c->commit();
    $out[] = run($c, "SELECT count(*) FROM t_php") . var_export($c->inTransaction(), true);
    $c->exec("DROP TABLE t_php");
    return $out;
});

test("scrollable cursor", false, function () {
    $c = open();
    $c->beginTransaction();
    $s = $c->prepare("SELECT g FROM generate_series(1, 20) g", [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $s->execute();
    $out = [show($s->fetchColumn()), show($s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 10)[0]),
        show($s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR)[0]), show($s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0])];
    $s = null;
    $c->commit();
    return $out;
});

test("copy", false, function () {
    $c = open();
    $c->exec("DROP TABLE IF EXISTS t_phpcopy");
    $c->exec("CREATE TABLE t_phpcopy (id int, v text)");
    $rows = array_map(fn ($i) => "$i\trow $i", range(0, 4999));
    $out = [show($c->pgsqlCopyFromArray("t_phpcopy", $rows)), (string) count($c->pgsqlCopyToArray("t_phpcopy"))];
    $out[] = failing(fn () => $c->pgsqlCopyFromArray("t_phpcopy", ["no number\tx"]));
    $out[] = run($c, "SELECT count(*), sum(id) FROM t_phpcopy");
    $c->exec("DROP TABLE t_phpcopy");
    return $out;
});

test("listen and notify", true, function () {
    $a = open();
    $b = open();
    $a->exec("LISTEN phpchan");
    $b->exec("NOTIFY phpchan, 'one'");
    $b->exec("SELECT pg_notify('phpchan', 'zwei ü')");
    $out = [];
    for ($i = 0; $i < 2; $i++) {
        $n = $a->pgsqlGetNotify(PDO::FETCH_ASSOC, 15000);
        $out[] = $n ? $n["message"] . " " . $n["payload"] : "none";
    }
    return $out;
});

test("backend pid", false, function () {
    $c = open();
    return [run($c, "SELECT pg_backend_pid() = " . $c->pgsqlGetPid())];
});

test("several statements in one query", false, function () {
    $c = open();
    return [(string) $c->exec("SET work_mem = '5MB'; SELECT 1; SELECT 2"), run($c, "SHOW work_mem"),
        failing(fn () => $c->exec("SET work_mem = '6MB'; SELECT 1/0")), run($c, "SHOW work_mem"),
        failing(fn () => $c->prepare("SELECT 1; SELECT ?")->execute([1]))];
});

test("large value both ways", false, function () {
    $c = open();
    $text = str_repeat("0123456789abcdef", 5 * 65536);
    $s = $c->prepare("SELECT length(?::text), ?::text");
    $s->execute([$text, $text]);
    $row = $s->fetch(PDO::FETCH_NUM);
    return [show($row[0]), var_export($row[1] === $text, true)];
});

test("persistent connections", false, function () {
    $out = [];
    for ($i = 0; $i < 3; $i++) {
        $c = open([], [PDO::ATTR_PERSISTENT => true]);
        $out[] = run($c, "SHOW work_mem");
        $c->exec("SET work_mem = '5MB'");
        $c = null;
    }
    return $out;
});

test("large object", false, function () {
    $c = open();
    $c->beginTransaction();
    $oid = $c->pgsqlLOBCreate();
    $s = $c->pgsqlLOBOpen($oid, 'w');
    fwrite($s, str_repeat("x", 100000));
    $s = null;
    $s = $c->pgsqlLOBOpen($oid, 'r');
    $out = [(string) strlen(stream_get_contents($s))];
    $s = null;
    $c->pgsqlLOBUnlink($oid);
    $c->commit();
    return $out;
});

// As programs do it: a new statement object for each execution.
function program(bool $auto, bool $emulated): array
{
    $c = open([], [PDO::ATTR_EMULATE_PREPARES => $emulated]);
    $c->exec("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)");
    $auto || $c->beginTransaction();
    $out = [];
    for ($i = 0; $i < 30; $i++) {
        $c->prepare("INSERT INTO t_program VALUES (?, ?)")->execute([$i, "v$i"]);
        $s = $c->prepare("SELECT v FROM t_program WHERE id = :i");
        $s->execute(["i" => $i]);
        $out[] = $s->fetchColumn();
        $s = null;
        if ($i % 10 === 5) {
            $out[] = failing(fn() => $c->prepare("INSERT INTO t_program VALUES (?, 'again')")->execute([$i]));
            $out[] = failing(fn() => $c->prepare("SELECT 'on or refused' WHERE ?::int = 1")->execute([1]));
        }
        if (!$auto && ($i % 4 === 3 || $i % 2 === 1)) {
            $i % 4 === 3 ? $c->rollBack() : $c->commit();
            $c->beginTransaction();
        }
    }
    $auto || $c->commit();
    $out[] = run($c, "SELECT count(*), sum(id) FROM t_program");
    $c->exec("DROP TABLE t_program");
    return $out;
}

test("like a program: new statements, autocommit on", false, fn() => [...program(true, false), ...program(true, true)]);
test("like a program: new statements, autocommit off", false, fn() => [...program(false, false), ...program(false, true)]);

test("a copy that fails while its rows are sent", false, function () {
    $out = [];
    foreach ([false, true] as $within) {
        $c = open();
        $c->exec("DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)");
        foreach ([1, 50, 5000, 50000] as $behind) {
            $lines = ["1\tx", "1\tx"];
            for ($i = 2; $i < $behind + 2; $i++) {
                $lines[] = "$i\ta row of some length, so that there are many messages";
            }
            !$within || $c->beginTransaction();
            $out[] = failing(fn() => $c->pgsqlCopyFromArray("t_fails", $lines));
            !$within || $c->rollBack();
            $out[] = failing(fn() => run($c, "SELECT 'on', count(*) FROM t_fails"));
        }
        $c->exec("DROP TABLE t_fails");
        $c = null;
    }
    return $out;
});

test("a client that leaves in the middle", false, function () {
    $c = open();
    $c->exec("DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)");
    $c = null;
    $out = [];
    // The process that leaves: killed, or at the end of its script in the middle of a transaction.
    foreach (["kill", "end"] as $how) {
        $code = '$c = new PDO(sprintf("pgsql:host=%s;port=%s;dbname=%s;sslmode=verify-full;sslrootcert=%s", getenv("PGHOST"), getenv("PGPORT"), '
            . 'getenv("PGDATABASE"), getenv("PGSSLROOTCERT")), getenv("PGUSER"), getenv("PGPASSWORD"), [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);'
            . '$c->beginTransaction(); $c->prepare("INSERT INTO t_leaves VALUES (?), (?)")->execute([1, 2]); echo "x"; '
            . ($how === "kill" ? 'sleep(60);' : '');
        $p = proc_open([PHP_BINARY, "-r", $code], [1 => ["pipe", "w"]], $pipes);
        fread($pipes[1], 1);
        if ($how === "kill") {
            proc_terminate($p, 9);
        }
        stream_get_contents($pipes[1]);
        proc_close($p);
        $c = open();
        $c->beginTransaction();
        $c->exec("LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE");
        $out[] = run($c, "SELECT count(*) FROM t_leaves");
        $c->commit();
        $c = null;
    }
    $c = open();
    $c->exec("DROP TABLE t_leaves");
    return $out;
});

$all = [];
foreach (file(getenv("DRIVERS_CASES"), FILE_IGNORE_NEW_LINES) as $line) {
    if (trim($line) === "" || $line[0] === "#") {
        continue;
    }
    if (strncmp($line, "case ", 5) === 0) {
        $words = explode(" ", $line);
        $all[] = [$words[1], isset($words[2]), []];
    } else {
        $all[count($all) - 1][2][] = $line;
    }
}
$only = array_filter(explode("|", getenv("DRIVERS_ONLY") ?: ""));
$skip = array_filter(explode("|", getenv("DRIVERS_SKIP") ?: ""));
foreach (array_merge($all, $own) as [$name, $two, $what]) {
    if (($only && !in_array($name, $only, true)) || in_array($name, $skip, true) || ($two && getenv("DRIVERS_ONE") === "1")) {
        continue;
    }
    echo "> $name\n";
    try {
        $result = is_array($what) ? steps($what) : $what();
    } catch (Throwable $e) {
        $result = ["!! " . error($e)];
    }
    $text = implode(" ; ", array_map('show', $result));
    echo $name, "\t", str_replace(["\\", "\n", "\r", "\t"], ["\\\\", "\\n", "\\r", "\\t"], $text), "\n";
}
