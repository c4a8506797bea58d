// pgjdbc, and what the other programs' harness does. The driver prepares on the server after
// five executions, pipelines its own BEGIN, and knows portals with a row limit.
// SPDX-License-Identifier: Apache-2.0
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.sql.*;
import java.util.*;
import java.util.regex.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyManager;

public class Cases {
    interface Body { Object run() throws Exception; }

    record Case(String name, boolean two, Body body) {}

    static final List<Case> cases = new ArrayList<>();

    static void test(String name, boolean two, Body body) { cases.add(new Case(name, two, body)); }

    static Connection open(String... pairs) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("sslmode", "verify-full");
        p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        p.setProperty("connectTimeout", "20");
        for (int i = 0; i < pairs.length; i += 2)
            p.setProperty(pairs[i].equals("application_name") ? "ApplicationName" : pairs[i], pairs[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
            + "/" + System.getenv("PGDATABASE"), p);
    }

    static String error(Throwable e) {
        if (e instanceof BatchUpdateException b && b.getNextException() != null)
            return "!batch " + Arrays.toString(b.getUpdateCounts()) + " " + error(b.getNextException());
        if (e instanceof SQLException s)
            return "!" + s.getSQLState() + " " + String.valueOf(s.getMessage()).split("\n")[0];
        return "!" + e.getClass().getSimpleName() + " " + e.getMessage();
    }

    static String failing(Body b) {
        try { return show(b.run()); } catch (Exception e) { return error(e); }
    }

    static String show(Object o) {
        if (o instanceof byte[] b) { return "bytes:" + HexFormat.of().formatHex(b); }
        if (o instanceof int[] a) { return Arrays.toString(a); }
        if (o instanceof Object[] a) { return Arrays.deepToString(a); }
        if (o instanceof java.sql.Array a) { try { return "array:" + a.getBaseTypeName() + show(a.getArray()); } catch (SQLException e) { return error(e); } }
        return o == null ? "NULL" : o instanceof String ? (String) o : o.getClass().getSimpleName() + ":" + o;
    }

    static String rows(ResultSet r) throws SQLException {
        StringBuilder out = new StringBuilder("(");
        ResultSetMetaData m = r.getMetaData();
        for (int i = 1; i <= m.getColumnCount(); i++)
            out.append(i > 1 ? "," : "").append(m.getColumnName(i)).append(":").append(m.getColumnTypeName(i));
        out.append(")");
        while (r.next()) {
            out.append("[");
            for (int i = 1; i <= m.getColumnCount(); i++)
                out.append(i > 1 ? "," : "").append(show(r.getObject(i)));
            out.append("]");
        }
        return out.toString();
    }

    static String results(Statement s, boolean first) throws SQLException {
        StringBuilder out = new StringBuilder();
        boolean rows = first;
        while (true) {
            if (rows)
                try (ResultSet r = s.getResultSet()) { out.append(rows(r)); }
            else if (s.getUpdateCount() < 0)
                break;
            else
                out.append("{").append(s.getUpdateCount()).append("}");
            rows = s.getMoreResults();
        }
        for (SQLWarning w = s.getWarnings(); w != null; w = w.getNextWarning())
            out.append(" <").append(w.getSQLState()).append(" ").append(w.getMessage()).append(">");
        return out.toString();
    }

    static String run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) { return results(s, s.execute(sql)); }
    }

    // Statements are kept, so that the driver's threshold counts.
    static final Map<Connection, Map<String, PreparedStatement>> kept = new WeakHashMap<>();

    static String arg(Connection c, String sql, List<String> values) throws SQLException {
        Map<String, PreparedStatement> mine = kept.computeIfAbsent(c, k -> new HashMap<>());
        PreparedStatement s = mine.get(sql);
        if (s == null)
            mine.put(sql, s = c.prepareStatement(sql.replaceAll("\\$\\d+", "?")));
        for (int i = 0; i < values.size(); i++)
            s.setString(i + 1, values.get(i));
        return results(s, s.execute());
    }

    static List<String> steps(List<String> lines) throws Exception {
        List<String> out = new ArrayList<>();
        Map<String, Connection> open = new LinkedHashMap<>();
        for (String line : lines) {
            String[] w = line.split(" ", 2);
            int times = 1;
            if (w[0].equals("times")) {
                w = w[1].split(" ", 2);
                times = Integer.parseInt(w[0]);
                w = w[1].split(" ", 2);
            }
            String verb = w[0];
            w = (w[1] + " ").split(" ", 2);
            String name = w[0], text = w[1].isEmpty() ? "" : w[1].substring(0, w[1].length() - 1);
            List<String> values = new ArrayList<>();
            if (verb.equals("arg")) {
                int at = text.indexOf(" <-");
                for (String v : text.substring(at + 3).split("\\|", -1))
                    values.add(v.strip());
                text = text.substring(0, at);
            }
            String last = null;
            int count = 0;
            for (int i = 0; i <= times; i++) {
                String result = null;
                if (i < times) {
                    try {
                        if (verb.equals("open")) {
                            List<String> pairs = new ArrayList<>();
                            for (String p : text.split(";;"))
                                if (!p.isBlank())
                                    pairs.addAll(List.of(p.strip().split("=", 2)));
                            open.put(name, open(pairs.toArray(new String[0])));
                            result = "+";
                        } else if (!open.containsKey(name)) {
                            result = "(not connected)";
                        } else if (verb.equals("close")) {
                            open.remove(name).close();
                            result = "-";
                        } else if (verb.equals("run")) {
                            result = run(open.get(name), text);
                        } else {
                            result = arg(open.get(name), text, values);
                        }
                    } catch (Exception e) {
                        result = error(e);
                    }
                    if (result.equals(last)) { count++; continue; }
                }
                if (last != null)
                    out.add(count == 1 ? last : last + " x" + count);
                last = result;
                count = 1;
            }
        }
        for (Connection c : open.values())
            c.close();
        return out;
    }

    static Set<String> listed(String variable) {
        Set<String> set = new HashSet<>();
        for (String s : Objects.requireNonNullElse(System.getenv(variable), "").split("\\|"))
            if (!s.isEmpty())
                set.add(s);
        return set;
    }

    static void common() throws IOException {
        List<String> lines = null;
        for (String line : Files.readAllLines(Path.of(System.getenv("DRIVERS_CASES")))) {
            if (line.isBlank() || line.startsWith("#"))
                continue;
            if (line.startsWith("case ")) {
                String[] w = line.split(" ");
                List<String> mine = lines = new ArrayList<>();
                test(w[1], w.length > 2, () -> steps(mine));
            } else {
                lines.add(line);
            }
        }
    }

    static String query(PreparedStatement s, Object... values) throws SQLException {
        for (int i = 0; i < values.length; i++)
            s.setObject(i + 1, values[i]);
        try (ResultSet r = s.executeQuery()) { return rows(r); }
    }

    static Thread later(int ms, Body b) {
        Thread t = new Thread(() -> { try { Thread.sleep(ms); b.run(); } catch (Exception e) { System.err.println(e); } });
        t.start();
        return t;
    }

    static void own() {
        test("types round trip", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open(); PreparedStatement s = c.prepareStatement(
                    "SELECT ?::text, ?::int8, ?::numeric, ?::bytea, ?::bool, ?::float8, ?::date, ?::timestamptz AT TIME ZONE 'UTC', ?::text, ?::int[], ?::uuid")) {
                for (int i = 0; i < 8; i++) {
                    s.setString(1, "it's ü 世界😀");
                    s.setLong(2, 1L << 60);
                    s.setBigDecimal(3, new java.math.BigDecimal("12345.678901234567890"));
                    s.setBytes(4, new byte[] {0, 1, (byte) 255});
                    s.setBoolean(5, true);
                    s.setDouble(6, 1.25);
                    s.setObject(7, java.time.LocalDate.of(2024, 2, 29));
                    s.setObject(8, java.time.OffsetDateTime.parse("2024-02-29T12:34:56.789Z"));
                    s.setNull(9, Types.VARCHAR);
                    s.setArray(10, c.createArrayOf("int4", new Integer[] {1, 2, null}));
                    s.setObject(11, UUID.fromString("f0000000-0000-4000-8000-00000000000f"));
                    try (ResultSet r = s.executeQuery()) { out.add(rows(r)); }
                }
            }
            return out;
        });
        test("server-prepared beyond the threshold", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open(); PreparedStatement s = c.prepareStatement("SELECT ?::int * 2 AS n")) {
                for (int i = 0; i < 12; i++)
                    out.add(query(s, i) + s.unwrap(PGStatement.class).isUseServerPrepare());
                out.add(failing(() -> query(s, "x")));
                out.add(query(s, 5));
                out.add(run(c, "DEALLOCATE ALL"));
                out.add(failing(() -> query(s, 6)));
                out.add(failing(() -> query(s, 7)));
                out.add(run(c, "DISCARD ALL"));
                out.add(failing(() -> query(s, 6)));
                out.add(failing(() -> query(s, 7)));
            }
            return out;
        });
        test("300 prepared statements", false, () -> {
            long sum = 0;
            try (Connection c = open("prepareThreshold", "1", "preparedStatementCacheQueries", "256")) {
                for (int round = 0; round < 3; round++)
                    for (int i = 0; i < 300; i++)
                        try (PreparedStatement s = c.prepareStatement("SELECT " + i + " + ?::int")) {
                            s.setInt(1, 1);
                            ResultSet r = s.executeQuery();
                            r.next();
                            sum += r.getLong(1);
                        }
            }
            return sum;
        });
        test("transactions of the driver", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                run(c, "DROP TABLE IF EXISTS t_jdbc");
                run(c, "CREATE TABLE t_jdbc (id int PRIMARY KEY, v text)");
                c.setAutoCommit(false);
                out.add(run(c, "INSERT INTO t_jdbc VALUES (1, 'one')"));
                Savepoint s = c.setSavepoint("sp");
                out.add(failing(() -> run(c, "INSERT INTO t_jdbc VALUES (1, 'again')")));
                out.add(failing(() -> run(c, "SELECT 1")));
                c.rollback(s);
                out.add(run(c, "INSERT INTO t_jdbc VALUES (2, 'two')"));
                c.commit();
                out.add(run(c, "SELECT * FROM t_jdbc ORDER BY id"));
                out.add(failing(() -> run(c, "SELECT 1/0")));
                c.rollback();
                out.add(run(c, "SELECT count(*) FROM t_jdbc"));
                c.commit();
                c.setAutoCommit(true);
                run(c, "DROP TABLE t_jdbc");
            }
            return out;
        });
        test("isolation levels and read-only", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                run(c, "DROP TABLE IF EXISTS never");
                for (int level : new int[] {Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_REPEATABLE_READ,
                        Connection.TRANSACTION_READ_COMMITTED}) {
                    c.setTransactionIsolation(level);
                    c.setAutoCommit(false);
                    out.add(run(c, "SHOW transaction_isolation") + c.getTransactionIsolation());
                    c.commit();
                    c.setAutoCommit(true);
                }
                c.setReadOnly(true);
                c.setAutoCommit(false);
                out.add(failing(() -> run(c, "CREATE TABLE never (id int)")));
                c.rollback();
                c.setReadOnly(false);
                out.add(run(c, "SHOW transaction_read_only"));
                c.rollback();
            }
            return out;
        });
        test("row limit by fetch size", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                c.setAutoCommit(false);
                try (Statement s = c.createStatement(); Statement t = c.createStatement()) {
                    s.setFetchSize(50);
                    t.setFetchSize(7);
                    ResultSet r = s.executeQuery("SELECT g FROM generate_series(1, 1000) g");
                    ResultSet q = t.executeQuery("SELECT g FROM generate_series(1, 100) g");
                    long sum = 0;
                    while (r.next()) {
                        sum += r.getInt(1);
                        if (q.next())
                            sum += q.getInt(1);
                    }
                    out.add("" + sum);
                    ResultSet left = s.executeQuery("SELECT g FROM generate_series(1, 1000) g");
                    left.next();
                    left.close();
                    ResultSet bad = s.executeQuery("SELECT 100/(120 - g) FROM generate_series(1, 200) g");
                    out.add(failing(() -> { int n = 0; while (bad.next()) n++; return n; }));
                }
                c.rollback();
                try (Statement s = c.createStatement()) {
                    s.setMaxRows(3);
                    out.add(results(s, s.execute("SELECT g FROM generate_series(1, 10) g")));
                }
                c.commit();
                try (Statement s = c.createStatement(ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY, ResultSet.HOLD_CURSORS_OVER_COMMIT)) {
                    s.setFetchSize(5);
                    ResultSet r = s.executeQuery("SELECT g FROM generate_series(1, 20) g");
                    int n = 0;
                    while (r.next())
                        n++;
                    out.add("" + n);
                }
                c.commit();
            }
            return out;
        });
        test("batch", false, () -> {
            List<String> out = new ArrayList<>();
            for (String rewrite : new String[] {"false", "true"})
                try (Connection c = open("reWriteBatchedInserts", rewrite)) {
                    c.setAutoCommit(false);
                    run(c, "CREATE TEMP TABLE tb (id int PRIMARY KEY, v text) ON COMMIT DROP");
                    try (PreparedStatement s = c.prepareStatement("INSERT INTO tb VALUES (?, ?)")) {
                        for (int i = 0; i < 1000; i++) {
                            s.setInt(1, i);
                            s.setString(2, "v" + i);
                            s.addBatch();
                        }
                        out.add("" + s.executeBatch().length);
                        out.add(run(c, "SELECT count(*), sum(id) FROM tb"));
                        for (int i = 2000; i < 2010; i++) {
                            s.setInt(1, i == 2005 ? 1 : i);
                            s.setString(2, "v");
                            s.addBatch();
                        }
                        out.add(failing(s::executeBatch));
                        c.rollback();
                    }
                    c.setAutoCommit(true);
                    try (Statement s = c.createStatement()) {
                        s.addBatch("SET work_mem = '5MB'");
                        s.addBatch("SELECT set_config('lock_timeout', '77', false)".replace("SELECT", "/* */ SELECT"));
                        out.add(failing(s::executeBatch));
                    }
                    out.add(run(c, "SHOW work_mem"));
                }
            return out;
        });
        test("generated keys", false, () -> {
            try (Connection c = open()) {
                run(c, "DROP TABLE IF EXISTS t_keys");
                run(c, "CREATE TABLE t_keys (id serial PRIMARY KEY, v text)");
                List<String> out = new ArrayList<>();
                try (PreparedStatement s = c.prepareStatement("INSERT INTO t_keys (v) VALUES (?), (?)", new String[] {"id"})) {
                    for (int i = 0; i < 7; i++) {
                        s.setString(1, "a");
                        s.setString(2, "b");
                        s.executeUpdate();
                        out.add(rows(s.getGeneratedKeys()));
                    }
                }
                run(c, "DROP TABLE t_keys");
                return out;
            }
        });
        test("metadata", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                run(c, "DROP TABLE IF EXISTS t_meta");
                run(c, "CREATE TABLE t_meta (id int PRIMARY KEY, v numeric(5,2) NOT NULL)");
                DatabaseMetaData m = c.getMetaData();
                try (ResultSet r = m.getColumns(null, "public", "t_meta", null)) {
                    while (r.next())
                        out.add(r.getString("COLUMN_NAME") + r.getString("TYPE_NAME") + r.getInt("COLUMN_SIZE"));
                }
                try (ResultSet r = m.getPrimaryKeys(null, "public", "t_meta")) { while (r.next()) out.add(r.getString("COLUMN_NAME")); }
                try (PreparedStatement s = c.prepareStatement("SELECT id, v FROM t_meta WHERE id = ?")) {
                    ParameterMetaData p = s.getParameterMetaData();
                    ResultSetMetaData q = s.getMetaData();
                    out.add(p.getParameterTypeName(1) + q.getColumnTypeName(2) + q.getPrecision(2));
                }
                out.add(m.getDatabaseProductVersion() + c.getSchema() + c.getCatalog().length());
                run(c, "DROP TABLE t_meta");
            }
            out.set(out.size() - 1, out.get(out.size() - 1).replaceAll("\\d+$", ""));
            return out;
        });
        test("listen and notify", true, () -> {
            List<String> out = new ArrayList<>();
            try (Connection a = open(); Connection b = open()) {
                run(a, "LISTEN jchan");
                run(b, "NOTIFY jchan, 'one'");
                run(b, "SELECT pg_notify('jchan', 'zwei ü')");
                long end = System.nanoTime() + 15_000_000_000L;
                while (out.size() < 2 && System.nanoTime() < end) {
                    PGNotification[] all = a.unwrap(PGConnection.class).getNotifications(500);
                    if (all != null)
                        for (PGNotification n : all)
                            out.add(n.getName() + " " + n.getParameter());
                }
                run(a, "UNLISTEN *");
                out.add(run(a, "SELECT 'on'"));
            }
            return out;
        });
        test("backend pid", false, () -> {
            try (Connection c = open()) {
                return run(c, "SELECT pg_backend_pid() = " + c.unwrap(PGConnection.class).getBackendPID());
            }
        });
        test("copy", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                CopyManager m = c.unwrap(PGConnection.class).getCopyAPI();
                run(c, "DROP TABLE IF EXISTS t_jcopy");
                run(c, "CREATE TABLE t_jcopy (id int, v text)");
                StringBuilder b = new StringBuilder();
                for (int i = 0; i < 20000; i++)
                    b.append(i).append("\trow ").append(i).append("\n");
                out.add("" + m.copyIn("COPY t_jcopy FROM STDIN", new StringReader(b.toString())));
                StringWriter w = new StringWriter();
                out.add("" + m.copyOut("COPY t_jcopy TO STDOUT", w) + w.toString().equals(b.toString()));
                out.add(failing(() -> m.copyIn("COPY t_jcopy FROM STDIN", new StringReader("no number\tx\n"))));
                var k = m.copyIn("COPY t_jcopy FROM STDIN");
                k.writeToCopy("1\tx\n".getBytes(), 0, 4);
                k.cancelCopy();
                out.add(run(c, "SELECT count(*) FROM t_jcopy"));
                run(c, "DROP TABLE t_jcopy");
            }
            return out;
        });
        test("cancel", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                for (int i = 0; i < 3; i++)
                    try (Statement s = c.createStatement()) {
                        Thread t = later(300, () -> { s.cancel(); return null; });
                        out.add(failing(() -> s.execute("SELECT pg_sleep(30)")));
                        t.join();
                        out.add(run(c, "SELECT 'on'"));
                    }
                try (Statement s = c.createStatement()) {
                    s.setQueryTimeout(1);
                    out.add(failing(() -> s.execute("SELECT pg_sleep(30)")));
                    out.add(results(s, s.execute("SELECT 'on'")));
                }
            }
            return out;
        });
        test("notices", false, () -> {
            try (Connection c = open()) {
                return run(c, "DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$") + run(c, "DROP TABLE IF EXISTS no_such_table");
            }
        });
        test("several statements in one query", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                out.add(run(c, "SELECT 1; SET work_mem = '5MB'; SELECT 2; SHOW work_mem"));
                out.add(failing(() -> run(c, "SELECT 1; SELECT 1/0; SELECT 3")));
                try (PreparedStatement s = c.prepareStatement("SELECT ?::int; SELECT ?::text")) {
                    for (int i = 0; i < 7; i++) {
                        s.setInt(1, i);
                        s.setString(2, "x");
                        out.add(results(s, s.execute()));
                    }
                }
            }
            return out;
        });
        test("simple query mode", false, () -> {
            List<String> out = new ArrayList<>();
            for (String mode : new String[] {"simple", "extendedForPrepared", "extendedCacheEverything"})
                try (Connection c = open("preferQueryMode", mode); PreparedStatement s = c.prepareStatement("SELECT ?::int + 1")) {
                    for (int i = 0; i < 7; i++)
                        out.add(query(s, i));
                    for (int i = 0; i < 7; i++)
                        out.add(run(c, "SELECT 'plain'"));
                    out.add(failing(() -> run(c, "SELECT 1/0")));
                    out.add(run(c, "SELECT 'on'"));
                }
            return out;
        });
        test("autosave after DDL", false, () -> {
            List<String> out = new ArrayList<>();
            for (String autosave : new String[] {"never", "conservative", "always"})
                try (Connection c = open("autosave", autosave, "prepareThreshold", "1")) {
                    run(c, "DROP TABLE IF EXISTS t_auto");
                    run(c, "CREATE TABLE t_auto (id int)");
                    c.setAutoCommit(false);
                    try (PreparedStatement s = c.prepareStatement("SELECT * FROM t_auto")) {
                        for (int i = 0; i < 3; i++)
                            out.add(query(s));
                        c.commit();
                        run(c, "ALTER TABLE t_auto ADD COLUMN v text");
                        c.commit();
                        out.add(failing(() -> query(s)));
                        c.rollback();
                        out.add(failing(() -> query(s)));
                        c.rollback();
                    }
                    run(c, "DROP TABLE t_auto");
                    c.commit();
                }
            return out;
        });
        test("large value both ways", false, () -> {
            try (Connection c = open(); PreparedStatement s = c.prepareStatement("SELECT length(?::text), ?::text, ?::bytea")) {
                String text = "0123456789abcdef".repeat(5 * 65536);
                byte[] data = new byte[5000000];
                Arrays.fill(data, (byte) 7);
                s.setString(1, text);
                s.setString(2, text);
                s.setBytes(3, data);
                ResultSet r = s.executeQuery();
                r.next();
                return r.getInt(1) + " " + r.getString(2).equals(text) + " " + Arrays.equals(r.getBytes(3), data);
            }
        });
        test("current schema and connection properties", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open("currentSchema", "pg_catalog", "ApplicationName", "jdbc case", "options", "-c statement_timeout=31s")) {
                out.add(run(c, "SHOW search_path") + run(c, "SHOW application_name") + run(c, "SHOW statement_timeout") + run(c, "SHOW extra_float_digits"));
                c.setSchema("public");
                out.add(c.getSchema());
                c.setClientInfo("ApplicationName", "later");
                out.add(run(c, "SHOW application_name") + c.unwrap(PGConnection.class).getParameterStatus("application_name"));
                out.add("" + c.isValid(5));
                out.add(new TreeMap<>(c.unwrap(PGConnection.class).getParameterStatuses()).toString());
            }
            return out;
        });
        test("updatable and scrollable result sets", false, () -> {
            List<String> out = new ArrayList<>();
            try (Connection c = open()) {
                run(c, "DROP TABLE IF EXISTS t_upd");
                run(c, "CREATE TABLE t_upd (id int PRIMARY KEY, v text)");
                run(c, "INSERT INTO t_upd SELECT g, 'v' FROM generate_series(1, 5) g");
                try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                    ResultSet r = s.executeQuery("SELECT id, v FROM t_upd ORDER BY id");
                    r.absolute(3);
                    r.updateString(2, "third");
                    r.updateRow();
                    r.last();
                    r.deleteRow();
                }
                out.add(run(c, "SELECT * FROM t_upd ORDER BY id"));
                run(c, "DROP TABLE t_upd");
            }
            return out;
        });
        test("large object", false, () -> {
            try (Connection c = open()) {
                c.setAutoCommit(false);
                var api = c.unwrap(PGConnection.class).getLargeObjectAPI();
                long oid = api.createLO();
                var o = api.open(oid);
                o.write(new byte[300000]);
                o.seek(100);
                int n = o.read(400000).length;
                o.close();
                api.delete(oid);
                c.commit();
                return n;
            }
        });
        // As programs do it: a new statement object for each execution.
        for (boolean auto : new boolean[] {true, false})
            test("like a program: new statements, autocommit " + (auto ? "on" : "off"), false, () -> {
                List<String> out = new ArrayList<>();
                for (String threshold : new String[] {"5", "1", "0"})
                    try (Connection c = open("prepareThreshold", threshold, "preparedStatementCacheQueries", threshold.equals("1") ? "0" : "256")) {
                        run(c, "DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)");
                        c.setAutoCommit(auto);
                        for (int i = 0; i < 30; i++) {
                            final int n = i;
                            try (PreparedStatement s = c.prepareStatement("INSERT INTO t_program VALUES (?, ?)")) {
                                s.setInt(1, i);
                                s.setString(2, "v" + i);
                                s.executeUpdate();
                            }
                            try (PreparedStatement s = c.prepareStatement("SELECT v FROM t_program WHERE id = ?")) {
                                s.setInt(1, i);
                                try (ResultSet r = s.executeQuery()) {
                                    r.next();
                                    out.add(r.getString(1));
                                }
                            }
                            if (i % 10 == 5) {
                                out.add(failing(() -> { try (PreparedStatement s = c.prepareStatement("INSERT INTO t_program VALUES (?, 'again')")) { s.setInt(1, n); return s.executeUpdate(); } }));
                                out.add(failing(() -> run(c, "SELECT 'on or refused'")));
                            }
                            if (!auto && i % 4 == 3)
                                c.rollback();
                            else if (!auto && (i % 2 == 1))
                                out.add(failing(() -> { c.commit(); return "+"; }));
                        }
                        if (!auto)
                            c.commit();
                        out.add(run(c, "SELECT count(*), sum(id) FROM t_program"));
                        run(c, "DROP TABLE t_program");
                        if (!auto)
                            c.commit();
                    }
                return out;
            });
        test("a copy that fails while its rows are sent", false, () -> {
            List<String> out = new ArrayList<>();
            for (boolean auto : new boolean[] {true, false})
                try (Connection c = open()) {
                    run(c, "DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)");
                    c.setAutoCommit(auto);
                    CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
                    for (int behind : new int[] {1, 50, 5000, 100000}) {
                        StringBuilder lines = new StringBuilder("1\tx\n1\tx\n");
                        for (int i = 2; i < behind + 2; i++)
                            lines.append(i).append("\tbehind it\n");
                        out.add(failing(() -> copy.copyIn("COPY t_fails FROM STDIN", new StringReader(lines.toString()))));
                        if (!auto)
                            c.rollback();
                        out.add(run(c, "SELECT 'on', count(*) FROM t_fails"));
                    }
                    run(c, "DROP TABLE t_fails");
                    if (!auto)
                        c.commit();
                }
            return out;
        });
        test("a client that leaves in the middle", false, () -> {
            List<String> out = new ArrayList<>();
            Body left = () -> {
                try (Connection look = open()) {
                    look.setAutoCommit(false);
                    run(look, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE");
                    String r = run(look, "SELECT count(*) FROM t_leaves");
                    look.rollback();
                    return r;
                }
            };
            try (Connection c = open()) {
                run(c, "DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY, v text)");
            }
            for (boolean silent : new boolean[] {true, false}) {
                Connection c = open();
                c.setAutoCommit(false);
                run(c, "INSERT INTO t_leaves VALUES (1), (2)");
                if (silent)
                    c.abort(Runnable::run);
                else
                    c.close();
                out.add(show(left.run()));
                Connection d = open();
                var in = d.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY t_leaves (id) FROM STDIN");
                byte[] line = new byte[0];
                for (int i = 0; i < 20000; i++) {
                    line = (i + "\n").getBytes(StandardCharsets.UTF_8);
                    in.writeToCopy(line, 0, line.length);
                }
                if (silent)
                    d.abort(Runnable::run);
                else
                    failing(() -> { d.close(); return null; });
                out.add(show(left.run()));
            }
            try (Connection c = open()) {
                run(c, "DROP TABLE t_leaves");
            }
            return out;
        });
        test("a client that leaves in a batch", true, () -> {
            List<String> out = new ArrayList<>();
            try (Connection holder = open()) {
                run(holder, "DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY, v text)");
                holder.setAutoCommit(false);
                // The batch stops at a row of ours while its client is sending.
                run(holder, "INSERT INTO t_leaves VALUES (500, 'holder')");
                Connection c = open();
                c.setAutoCommit(false);
                PreparedStatement s = c.prepareStatement("INSERT INTO t_leaves VALUES (?, ?)");
                for (int i = 0; i < 2000; i++) {
                    s.setInt(1, i);
                    s.setString(2, "v");
                    s.addBatch();
                }
                Thread batch = new Thread(() -> failing(() -> s.executeBatch()));
                batch.start();
                while (!run(holder, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'").contains("true"))
                    Thread.sleep(20);
                c.abort(Runnable::run);
                batch.join();
                holder.rollback();
            }
            try (Connection look = open()) {
                look.setAutoCommit(false);
                run(look, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE");
                out.add(run(look, "SELECT count(*) FROM t_leaves"));
                look.rollback();
                run(look, "DROP TABLE t_leaves");
                look.commit();
            }
            return out;
        });
        test("function call", false, () -> {
            try (Connection c = open(); CallableStatement s = c.prepareCall("{? = call upper(?)}")) {
                List<String> out = new ArrayList<>();
                for (int i = 0; i < 7; i++) {
                    s.registerOutParameter(1, Types.VARCHAR);
                    s.setString(2, "abc");
                    s.execute();
                    out.add(s.getString(1));
                }
                return out;
            }
        });
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
        common();
        own();
        Set<String> only = listed("DRIVERS_ONLY"), skip = listed("DRIVERS_SKIP");
        boolean one = "1".equals(System.getenv("DRIVERS_ONE"));
        for (Case c : cases) {
            if ((!only.isEmpty() && !only.contains(c.name)) || skip.contains(c.name) || (one && c.two))
                continue;
            out.println("> " + c.name);
            String result;
            try {
                Object o = c.body.run();
                result = o instanceof List<?> l ? String.join(" ; ", l.stream().map(String::valueOf).toList()) : show(o);
            } catch (Exception e) {
                result = "!! " + error(e);
            }
            out.println(c.name + "\t" + result.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t"));
        }
        System.exit(0);
    }
}
