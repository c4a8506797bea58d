// HikariCP over pgjdbc: a pool as Java's programs have it, with what they do on its connections.
// SPDX-License-Identifier: Apache-2.0
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

public class Hikari {
    interface Work<T> { T of(Connection c) throws Exception; }
    interface Case { List<Object> run() throws Exception; }
    interface Role { String run(String[] arguments) throws Exception; }
    interface Setting { void of(HikariConfig c); }

    static final Map<String, Case> CASES = new LinkedHashMap<>();
    static final Map<String, Role> ROLES = new TreeMap<>();
    static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    static HikariDataSource pool;

    static HikariDataSource open(Setting more) {
        HikariConfig c = new HikariConfig();
        Map<String, String> e = System.getenv();
        c.setJdbcUrl("jdbc:postgresql://" + e.get("PGHOST") + ":" + e.get("PGPORT") + "/" + e.get("PGDATABASE"));
        c.setUsername(e.get("PGUSER"));
        c.setPassword(e.get("PGPASSWORD"));
        c.addDataSourceProperty("sslmode", "verify-full");
        c.addDataSourceProperty("sslrootcert", e.get("PGSSLROOTCERT"));
        c.setMaximumPoolSize(4);
        more.of(c);
        return new HikariDataSource(c);
    }

    static <T> T with(HikariDataSource from, Work<T> work) throws Exception {
        try (Connection c = from.getConnection()) {
            return work.of(c);
        }
    }

    static String rows(ResultSet r) throws SQLException {
        StringBuilder out = new StringBuilder();
        while (r.next()) {
            out.append('[');
            for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) out.append(i > 1 ? "," : "").append(r.getString(i));
            out.append(']');
        }
        return out.toString();
    }

    static String run(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) s.setObject(i + 1, values[i]);
            if (!s.execute()) return String.valueOf(s.getUpdateCount());
            try (ResultSet r = s.getResultSet()) {
                return rows(r);
            }
        }
    }

    static String look(String sql) throws Exception { return with(pool, c -> run(c, sql)); }

    static String failing(Callable<?> work) {
        try {
            return String.valueOf(work.call());
        } catch (Exception e) {
            Throwable t = e instanceof BatchUpdateException && ((SQLException) e).getNextException() != null ? ((SQLException) e).getNextException() : e;
            return "!" + t.getClass().getSimpleName() + (t instanceof SQLException ? " " + ((SQLException) t).getSQLState() : "") + " " + String.valueOf(t.getMessage()).split("\n")[0].replaceAll("\\d+ms", "(ms)");
        }
    }

    // A process that is ready for its role and waits for a line.
    static class Helper {
        final Process process;
        final BufferedReader from;
        String last = "";

        Helper(String... arguments) throws Exception {
            List<String> argv = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElse("java"), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", System.getProperty("java.class.path"), "Hikari"));
            argv.addAll(Arrays.asList(arguments));
            process = new ProcessBuilder(argv).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            from = process.inputReader(StandardCharsets.UTF_8);
            hear("ready");
        }

        boolean hear(String text) throws Exception {
            for (String line; (line = from.readLine()) != null; ) {
                last = line;
                if (line.equals(text)) return true;
            }
            return false;
        }

        Helper go() throws Exception {
            process.outputWriter().write("go\n");
            process.outputWriter().flush();
            return this;
        }

        int kill() throws Exception { return process.destroyForcibly().waitFor(); }

        String result() throws Exception {
            hear("(nothing)");
            process.waitFor();
            return last;
        }
    }

    static String together(int count, String... arguments) throws Exception {
        List<Helper> all = new ArrayList<>();
        for (int i = 0; i < count; i++) all.add(new Helper(arguments));
        for (Helper h : all) h.go();
        Map<String, Integer> tally = new TreeMap<>();
        for (Helper h : all) tally.merge(h.result(), 1, Integer::sum);
        return tally.toString();
    }

    static final String[][] MIGRATIONS = {
        {"CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')", "CREATE TABLE person (id serial PRIMARY KEY, name text NOT NULL UNIQUE, mood mood DEFAULT 'ok', tags text[], more jsonb)"},
        {"CREATE TABLE pet (id bigint PRIMARY KEY, owner int REFERENCES person ON DELETE CASCADE, name text, weight numeric(8,2) CHECK (weight >= 0))", "INSERT INTO person (name) VALUES ('Ada'), ('Grace')"},
        {"CREATE TABLE job (id int PRIMARY KEY, state text DEFAULT 'new', tries int DEFAULT 0)", "CREATE TABLE effect (job int)"}};

    static {
        // As Flyway does it: an advisory lock on one connection, each version in a transaction on another.
        ROLES.put("migrate", a -> with(pool, lock -> {
            while (!run(lock, "SELECT pg_try_advisory_lock(4717)").equals("[t]")) Thread.sleep(50);
            try {
                return with(pool, c -> {
                    run(c, "CREATE TABLE IF NOT EXISTS versions (version int PRIMARY KEY, at timestamptz DEFAULT now())");
                    int done = 0;
                    for (int v = 0; v < MIGRATIONS.length; v++) {
                        if (!run(c, "SELECT 1 FROM versions WHERE version = ?", v).isEmpty()) continue;
                        c.setAutoCommit(false);
                        for (String sql : MIGRATIONS[v]) run(c, sql);
                        run(c, "INSERT INTO versions (version) VALUES (?)", v);
                        if (a.length > 1) { run(c, "CREATE TABLE half (id int)"); OUT.println("in it"); Thread.sleep(60000); }
                        c.commit();
                        c.setAutoCommit(true);
                        done++;
                    }
                    return "applied " + done;
                });
            } finally {
                run(lock, "SELECT pg_advisory_unlock(4717)");
            }
        }));
        ROLES.put("work", a -> {
            int dies = Integer.parseInt(a[1]), fails = Integer.parseInt(a[2]);
            for (;;) {
                try (Connection c = pool.getConnection()) {
                    c.setAutoCommit(false);
                    int id, tries;
                    try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT id, tries FROM job WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")) {
                        if (!r.next()) {
                            boolean none = run(c, "SELECT count(*) FROM job WHERE state = 'new'").equals("[0]");
                            c.rollback();
                            if (none) return "no more jobs";
                            continue;
                        }
                        id = r.getInt(1);
                        tries = r.getInt(2);
                    }
                    run(c, "UPDATE job SET state = 'done', tries = tries + 1 WHERE id = ?", id);
                    run(c, "INSERT INTO effect VALUES (?)", id);
                    if (id == dies) { OUT.println("mid-job"); Thread.sleep(60000); }
                    if (id == fails && tries == 0) {
                        c.rollback();
                        run(c, "UPDATE job SET tries = tries + 1 WHERE id = ?", id);
                    }
                    c.commit();
                }
            }
        });

        CASES.put("three migrate at once", () -> List.of(together(3, "migrate"), look("SELECT version FROM versions ORDER BY 1"), look("SELECT table_name, column_name, data_type, column_default FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE 'pgbench%' ORDER BY 1, ordinal_position")));
        CASES.put("a migrator that is killed gives its lock free", () -> {
            look("DELETE FROM versions WHERE version = 2");
            look("DROP TABLE job, effect");
            Helper h = new Helper("migrate", "hang").go();
            return List.of(h.hear("in it"), h.kill(), together(3, "migrate"), look("SELECT to_regclass('half'), count(*) FROM versions"));
        });
        CASES.put("states of connections come back clean", () -> {
            List<Object> out = new ArrayList<>();
            try (HikariDataSource one = open(c -> { c.setMaximumPoolSize(1); c.setSchema("public"); c.setTransactionIsolation("TRANSACTION_REPEATABLE_READ"); c.setConnectionInitSql("SET application_name = 'hikari'"); })) {
                for (int i = 0; i < 3; i++) {
                    final int n = i;
                    out.add(with(one, c -> {
                        String before = run(c, "SELECT current_setting('application_name'), current_setting('transaction_isolation'), current_setting('search_path'), current_setting('default_transaction_read_only')") + c.getAutoCommit() + c.isReadOnly() + c.getTransactionIsolation();
                        c.setAutoCommit(false);
                        c.setReadOnly(n == 1);
                        c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
                        c.setSchema("pg_catalog");
                        String inside = run(c, "SHOW transaction_isolation") + run(c, "SHOW search_path") + run(c, "SHOW transaction_read_only") + failing(() -> run(c, "CREATE TABLE public.t" + n + " (i int)"));
                        return before + " " + inside;  // not committed: the pool rolls back
                    }));
                }
                out.add(with(one, c -> run(c, "SELECT to_regclass('t0'), to_regclass('t2')")));
            }
            return out;
        });
        CASES.put("statements: thresholds, arrays, JSON, enumerations, generated keys", () -> with(pool, c -> {
            List<Object> out = new ArrayList<>();
            try (PreparedStatement s = c.prepareStatement("INSERT INTO person (name, mood, tags, more) VALUES (?, ?::mood, ?, ?::jsonb) ON CONFLICT (name) DO UPDATE SET mood = excluded.mood", Statement.RETURN_GENERATED_KEYS)) {
                for (int i = 0; i < 12; i++) {
                    s.setString(1, "Linus");
                    s.setString(2, i % 2 == 0 ? "sad" : "happy");
                    s.setArray(3, c.createArrayOf("text", new String[] {"x", "y,z", "\"q\"", null}));
                    s.setString(4, "{\"ü\": [1, null]}");
                    s.executeUpdate();
                    try (ResultSet r = s.getGeneratedKeys()) { r.next(); if (i == 11) out.add(r.getString("name") + r.getString("mood") + Arrays.toString((Object[]) r.getArray("tags").getArray())); }
                }
            }
            Set<String> seen = new TreeSet<>();
            for (int i = 0; i < 40; i++) seen.add(run(c, "SELECT name, ?::int * 0 FROM person WHERE name = ?", i, "Ada"));
            out.add(seen.toString());
            // A new statement object each time, in and out of transactions.
            for (boolean auto : new boolean[] {true, false}) {
                c.setAutoCommit(auto);
                int sum = 0;
                for (int i = 0; i < 30; i++) try (PreparedStatement s = c.prepareStatement("SELECT ?::int + 1")) { s.setInt(1, i); try (ResultSet r = s.executeQuery()) { r.next(); sum += r.getInt(1); } if (!auto && i % 4 == 0) c.commit(); }
                out.add(sum);
                if (!auto) c.commit();
            }
            c.setAutoCommit(true);
            for (String sql : new String[] {"INSERT INTO person (name) VALUES ('Ada')", "INSERT INTO pet VALUES (1, -1)", "INSERT INTO pet (id, weight) VALUES (1, -1)", "INSERT INTO person (name) VALUES (NULL)", "SELEC 1", "SELECT 1/0", "SELECT * FROM nothing"}) out.add(failing(() -> run(c, sql)));
            out.add(run(c, "DELETE FROM person WHERE name = 'Linus'"));
            return out;
        }));
        CASES.put("batches: rewritten, failing; fetch size; COPY", () -> {
            List<Object> out = new ArrayList<>();
            try (HikariDataSource p = open(c -> { c.addDataSourceProperty("reWriteBatchedInserts", "true"); c.setMaximumPoolSize(2); })) {
                for (HikariDataSource from : List.of(p, pool)) {
                    with(from, c -> {
                        for (boolean auto : new boolean[] {false, true}) {
                            c.setAutoCommit(auto);
                            try (PreparedStatement s = c.prepareStatement("INSERT INTO pet (id, name) VALUES (?, ?)")) {
                                for (int i = 0; i < 1000; i++) { s.setLong(1, i); s.setString(2, "batch"); s.addBatch(); }
                                out.add(s.executeBatch().length);
                                for (int i = 990; i < 1010; i++) { s.setLong(1, 1999 - i); s.setString(2, "again"); s.addBatch(); }
                                if (!auto) c.commit();
                                out.add(failing(() -> Arrays.toString(s.executeBatch())));
                                if (!auto) c.rollback();
                            }
                            c.setAutoCommit(false);
                            try (PreparedStatement s = c.prepareStatement("SELECT id FROM pet WHERE name = 'batch' ORDER BY id")) {
                                s.setFetchSize(50);
                                long sum = 0;
                                try (ResultSet r = s.executeQuery()) { while (r.next()) sum += r.getLong(1); }
                                out.add(sum);
                            }
                            out.add(run(c, "DELETE FROM pet"));
                            c.commit();
                        }
                        CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
                        c.setAutoCommit(true);
                        String lines = java.util.stream.IntStream.range(0, 3000).mapToObj(i -> i + "\tcopied\n").collect(Collectors.joining());
                        out.add(copy.copyIn("COPY pet (id, name) FROM STDIN", new StringReader(lines)));
                        out.add(failing(() -> copy.copyIn("COPY pet (id, name) FROM STDIN", new StringReader(lines))));
                        java.io.StringWriter w = new java.io.StringWriter();
                        out.add(copy.copyOut("COPY (SELECT id FROM pet ORDER BY id LIMIT 2) TO STDOUT", w) + w.toString());
                        out.add(run(c, "DELETE FROM pet"));
                        return null;
                    });
                }
            }
            return out;
        });
        CASES.put("transactions, savepoints, autosave", () -> {
            List<Object> out = new ArrayList<>();
            for (String autosave : new String[] {"never", "always", "conservative"}) {
                try (HikariDataSource p = open(c -> { c.addDataSourceProperty("autosave", autosave); c.setAutoCommit(false); c.setMaximumPoolSize(1); })) {
                    out.add(with(p, c -> {
                        String r = run(c, "INSERT INTO person (name) VALUES ('outer')") + failing(() -> run(c, "INSERT INTO person (name) VALUES ('Ada')")) + failing(() -> run(c, "INSERT INTO person (name) VALUES ('second')"));
                        String end = failing(() -> { c.commit(); return "committed"; });
                        return r + end + run(c, "SELECT name FROM person ORDER BY 1") + run(c, "DELETE FROM person WHERE name IN ('outer', 'second')") + failing(() -> { c.commit(); return ""; });
                    }));
                }
            }
            out.add(with(pool, c -> {
                c.setAutoCommit(false);
                run(c, "INSERT INTO person (name) VALUES ('outer')");
                Savepoint s = c.setSavepoint("s");
                String r = failing(() -> run(c, "INSERT INTO person (name) VALUES ('outer')")) + failing(() -> run(c, "SELECT 1"));
                c.rollback(s);
                run(c, "INSERT INTO person (name) VALUES ('second')");
                c.releaseSavepoint(s);
                r += run(c, "SELECT name FROM person ORDER BY 1");
                c.rollback();
                return r + run(c, "SELECT name FROM person ORDER BY 1");
            }));
            return out;
        });
        CASES.put("many threads, waits, cancels, leaks, lifetimes", () -> {
            List<Object> out = new ArrayList<>();
            ExecutorService threads = Executors.newFixedThreadPool(12);
            try (HikariDataSource p = open(c -> { c.setMaximumPoolSize(3); c.setConnectionTimeout(20000); c.setMaxLifetime(30000); c.addDataSourceProperty("ApplicationName", "hikari many"); c.addDataSourceProperty("options", "-c statement_timeout=7000"); })) {
                List<Future<String>> all = new ArrayList<>();
                for (int i = 0; i < 300; i++) {
                    final int n = i;
                    all.add(threads.submit(() -> with(p, c -> { c.setAutoCommit(n % 3 != 0); String r = run(c, "SELECT ?::int * 0, current_setting('application_name'), current_setting('statement_timeout')", n); if (n % 3 == 0) c.commit(); return r; })));
                }
                Set<String> seen = new TreeSet<>();
                for (Future<String> f : all) seen.add(f.get());
                out.add(seen.toString());
                out.add(with(p, c -> { try (Statement s = c.createStatement()) { s.setQueryTimeout(1); return failing(() -> s.executeQuery("SELECT pg_sleep(20)")); } }));
                out.add(with(p, c -> run(c, "SELECT 'still here'")));
                Connection[] held = {p.getConnection(), p.getConnection(), p.getConnection()};
                Future<String> waits = threads.submit(() -> with(p, c -> run(c, "SELECT 'waited'")));
                Thread.sleep(200);
                out.add(waits.isDone());
                held[0].abort(threads);
                // (what was used just now is lent again without a look at it)
                p.evictConnection(held[0]);
                p.evictConnection(held[1]);
                for (Connection c : held) failing(() -> { c.close(); return null; });
                out.add(waits.get());
                p.getHikariPoolMXBean().softEvictConnections();
                out.add(with(p, c -> c.isValid(5)) + with(p, c -> run(c, "SELECT 'anew'")));
            }
            try (HikariDataSource p = open(c -> { c.setMaximumPoolSize(1); c.setConnectionTimeout(500); })) {
                Connection held = p.getConnection();
                out.add(failing(() -> with(p, c -> run(c, "SELECT 1"))).split(" - ")[0]);
                held.close();
                out.add(failing(() -> with(p, c -> run(c, "SELECT 'fine'"))));
            }
            threads.shutdownNow();
            return out;
        });
        CASES.put("metadata, LISTEN, advisory locks, temporary tables", () -> with(pool, c -> {
            List<Object> out = new ArrayList<>();
            out.add(rows(c.getMetaData().getColumns(null, "public", "p%", null)).length() > 0);
            try (ResultSet r = c.getMetaData().getImportedKeys(null, "public", "pet")) { out.add(rows(r)); }
            try (ResultSet r = c.getMetaData().getIndexInfo(null, "public", "person", false, false)) { StringBuilder b = new StringBuilder(); while (r.next()) b.append(r.getString("INDEX_NAME")).append(' '); out.add(b.toString()); }
            out.add(c.getMetaData().getDatabaseMajorVersion());
            try (Statement s = c.createStatement()) { s.execute("LISTEN news"); }
            with(pool, o -> { for (int i = 0; i < 3; i++) run(o, "SELECT pg_notify('news', ?)", "n" + i); return null; });
            List<String> heard = new ArrayList<>();
            for (int i = 0; i < 100 && heard.size() < 3; i++) { PGNotification[] all = c.unwrap(PGConnection.class).getNotifications(200); if (all != null) for (PGNotification n : all) heard.add(n.getParameter()); }
            out.add(heard.toString());
            run(c, "UNLISTEN *");
            out.add(run(c, "SELECT pg_try_advisory_lock(4718)") + with(pool, o -> run(o, "SELECT pg_try_advisory_lock(4718)")) + run(c, "SELECT pg_advisory_unlock(4718)") + with(pool, o -> run(o, "SELECT pg_try_advisory_lock(4718), pg_advisory_unlock(4718)")));
            run(c, "CREATE TEMPORARY TABLE mine (v int)");
            for (int i = 0; i < 8; i++) run(c, "INSERT INTO mine VALUES (?)", i);
            out.add(run(c, "SELECT sum(v) FROM mine") + run(c, "DROP TABLE mine"));
            return out;
        }));
        CASES.put("jobs with skip locked: one worker is killed, one job throws", () -> {
            look("INSERT INTO job (id) SELECT g FROM generate_series(1, 60) g");
            Helper doomed = new Helper("work", "1", "0").go();
            return List.of(doomed.hear("mid-job"), doomed.kill(), together(3, "work", "0", "7"), look("SELECT state, tries > 1, count(*) FROM job GROUP BY 1, 2 ORDER BY 1, 2"), look("SELECT count(*), count(DISTINCT job) FROM effect"));
        });
    }

    static Set<String> listed(String variable) {
        String v = System.getenv(variable);
        return v == null ? Set.of() : Arrays.stream(v.split("\\|")).filter(s -> !s.isEmpty()).collect(Collectors.toSet());
    }

    public static void main(String[] arguments) throws Exception {
        pool = open(c -> { });
        if (arguments.length > 0) {
            OUT.println("ready");
            System.in.read();
            OUT.println(failing(() -> ROLES.get(arguments[0]).run(arguments)));
            System.exit(0);
        }
        Set<String> only = listed("DRIVERS_ONLY"), skip = listed("DRIVERS_SKIP");
        for (Map.Entry<String, Case> entry : CASES.entrySet()) {
            if ((!only.isEmpty() && !only.contains(entry.getKey())) || skip.contains(entry.getKey())) continue;
            OUT.println("> " + entry.getKey());
            String text;
            try {
                text = entry.getValue().run().stream().map(String::valueOf).collect(Collectors.joining(" ; "));
            } catch (Exception e) {
                text = "!! " + failing(() -> { throw e; });
            }
            OUT.println(entry.getKey() + "\t" + text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t"));
        }
        System.exit(0);
    }
}
