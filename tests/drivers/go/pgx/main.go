// pgx: every statement is prepared and cached by the driver; batches are pipelines.
//
// SPDX-License-Identifier: Apache-2.0
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"drivers/harness"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgconn/stmtcache"
	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

type driver struct{}

var d = driver{}

func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 40*time.Second)
}

func config(options map[string]string) (*pgx.ConnConfig, error) {
	c, e := pgx.ParseConfig("")
	if e != nil {
		return nil, e
	}
	c.Host = os.Getenv("PGHOST")
	for k, v := range options {
		c.RuntimeParams[k] = v
	}
	return c, nil
}

func (driver) Open(options map[string]string) (interface{}, error) {
	c, e := config(options)
	if e != nil {
		return nil, e
	}
	ctx, done := background()
	defer done()
	return pgx.ConnectConfig(ctx, c)
}

func open(o *harness.Out, options map[string]string) *pgx.Conn {
	c, e := d.Open(options)
	if e != nil {
		o.Check(e)
		return nil
	}
	return c.(*pgx.Conn)
}

func collect(rows pgx.Rows, e error) (string, error) {
	if e != nil {
		return "", e
	}
	defer rows.Close()
	out := "("
	for i, f := range rows.FieldDescriptions() {
		if i > 0 {
			out += ","
		}
		out += fmt.Sprintf("%s:%d", f.Name, f.DataTypeOID)
	}
	out += ")"
	for rows.Next() {
		values, e := rows.Values()
		if e != nil {
			return "", e
		}
		out += harness.Row(values)
	}
	if e := rows.Err(); e != nil {
		return "", e
	}
	return rows.CommandTag().String() + out, nil
}

func query(c *pgx.Conn, sql string, args ...interface{}) (string, error) {
	ctx, done := background()
	defer done()
	rows, e := c.Query(ctx, sql, args...)
	return collect(rows, e)
}

func (driver) Run(c interface{}, sql string) (string, error) { return query(c.(*pgx.Conn), sql) }

func (driver) Arg(c interface{}, sql string, values []interface{}) (string, error) {
	return query(c.(*pgx.Conn), sql, values...)
}

func (driver) Close(c interface{}) error {
	ctx, done := background()
	defer done()
	return c.(*pgx.Conn).Close(ctx)
}

// The driver numbers its statements over all connections.
var serial = regexp.MustCompile(`lrupsc_\d+_`)

func (driver) Error(e error) string {
	var p *pgconn.PgError
	if errors.As(e, &p) {
		return fmt.Sprintf("!%s %s %s %s %s at %d", p.Severity, p.Code, serial.ReplaceAllString(p.Message, "lrupsc_"), p.Detail, p.Hint, p.Position)
	}
	return "!" + strings.ReplaceAll(e.Error(), os.Getenv("PGDATABASE"), "(database)")
}

func exec(c *pgx.Conn, sql string, args ...interface{}) (string, error) {
	ctx, done := background()
	defer done()
	tag, e := c.Exec(ctx, sql, args...)
	return string(tag), e
}

// A source of rows whose client is gone after the first hundreds of thousands of bytes.
type leaver struct{ leave func() }

func (l *leaver) Read(b []byte) (int, error) {
	if l.leave == nil {
		return 0, io.EOF
	}
	n := 0
	for i := 2000; n+5 <= len(b) && i < 9000; i++ {
		n += copy(b[n:], fmt.Sprintf("%d\n", i))
	}
	l.leave()
	l.leave = nil
	return n, nil
}

func main() {
	ctx := context.Background()
	harness.Test("types round trip", false, func(o *harness.Out) {
		c := open(o, nil)
		o.Try(query(c, "SELECT $1::text, $2::int8, $3::bytea, $4::bool, $5::float8, $6::text, $7::int[], $8::text[]",
			"it's ü 世界😀", int64(1)<<60, []byte{0, 1, 255}, true, 1.25, nil, []int32{1, 2}, []string{"a", "b,c", "d\"e"}))
		o.Try(query(c, "SELECT $1::timestamptz AT TIME ZONE 'UTC', $2::jsonb, $3::date",
			time.Date(2024, 2, 29, 12, 34, 56, 789000000, time.UTC), map[string]interface{}{"k": []int{1}}, time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)))
		o.Try(query(c, "SELECT 1.5::numeric::text, '1 day'::interval::text, 'f0000000-0000-4000-8000-00000000000f'::uuid"))
		o.Try(query(c, "SELECT $1::int", "not a number"))
		d.Close(c)
	})
	harness.Test("prepared statements by name", false, func(o *harness.Out) {
		c := open(o, nil)
		for i := 0; i < 3; i++ {
			sd, e := c.Prepare(ctx, "named", "SELECT $1::int + 1 AS n")
			if e == nil {
				o.Add(fmt.Sprint(sd.ParamOIDs, string(sd.Fields[0].Name)))
			}
			o.Check(e)
			o.Try(query(c, "named", i))
		}
		o.Check(c.Deallocate(ctx, "named"))
		_, e := c.Prepare(ctx, "named", "SELECT 'another'")
		o.Check(e)
		o.Try(query(c, "named"))
		_, e = c.Prepare(ctx, "bad", "SELECT nothing")
		o.Check(e)
		o.Try(exec(c, "DEALLOCATE ALL"))
		o.Try(query(c, "named"))
		o.Try(query(c, "SELECT 'on'"))
		d.Close(c)
	})
	harness.Test("300 prepared statements", false, func(o *harness.Out) {
		c := open(o, nil)
		sum := 0
		for round := 0; round < 3; round++ {
			for i := 0; i < 300; i++ {
				var n int
				if e := c.QueryRow(ctx, fmt.Sprintf("SELECT %d + $1::int", i), 1).Scan(&n); e != nil {
					o.Check(e)
				}
				sum += n
			}
		}
		o.Add(sum)
		d.Close(c)
	})
	harness.Test("small cache, describe cache, simple protocol", false, func(o *harness.Out) {
		for _, mode := range []string{"small", "describe", "simple"} {
			k, _ := config(nil)
			switch mode {
			case "small":
				k.BuildStatementCache = func(c *pgconn.PgConn) stmtcache.Cache { return stmtcache.New(c, stmtcache.ModePrepare, 3) }
			case "describe":
				k.BuildStatementCache = func(c *pgconn.PgConn) stmtcache.Cache { return stmtcache.New(c, stmtcache.ModeDescribe, 8) }
			default:
				k.PreferSimpleProtocol = true
			}
			c, e := pgx.ConnectConfig(ctx, k)
			if e != nil {
				o.Check(e)
				continue
			}
			for i := 0; i < 20; i++ {
				o.Try(query(c, fmt.Sprintf("SELECT %d + $1::int", i%7), i))
			}
			o.Try(query(c, "SELECT 1/$1::int", 0))
			o.Try(query(c, "SELECT 'on'"))
			d.Close(c)
		}
	})
	harness.Test("transactions of the driver", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_pgx")
		exec(c, "CREATE TABLE t_pgx (id int PRIMARY KEY)")
		tx, e := c.Begin(ctx)
		o.Check(e)
		_, e = tx.Exec(ctx, "INSERT INTO t_pgx VALUES ($1)", 1)
		o.Check(e)
		inner, e := tx.Begin(ctx)
		o.Check(e)
		_, e = inner.Exec(ctx, "INSERT INTO t_pgx VALUES ($1)", 1)
		o.Check(e)
		o.Check(inner.Rollback(ctx))
		_, e = tx.Exec(ctx, "INSERT INTO t_pgx VALUES ($1)", 2)
		o.Check(e)
		o.Check(tx.Commit(ctx))
		o.Try(query(c, "SELECT id FROM t_pgx ORDER BY id"))
		for _, level := range []pgx.TxIsoLevel{pgx.Serializable, pgx.RepeatableRead, pgx.ReadCommitted} {
			tx, e = c.BeginTx(ctx, pgx.TxOptions{IsoLevel: level, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable})
			o.Check(e)
			o.Try(query(c, "SHOW transaction_isolation"))
			_, e = tx.Exec(ctx, "INSERT INTO t_pgx VALUES (3)")
			o.Check(e)
			o.Check(tx.Commit(ctx))
		}
		exec(c, "DROP TABLE t_pgx")
		d.Close(c)
	})
	harness.Test("batch", false, func(o *harness.Out) {
		c := open(o, nil)
		b := &pgx.Batch{}
		for i := 0; i < 100; i++ {
			b.Queue("SELECT $1::int * 2", i)
		}
		b.Queue("SET work_mem = '5MB'")
		b.Queue("SHOW work_mem")
		r := c.SendBatch(ctx, b)
		sum := 0
		for i := 0; i < 100; i++ {
			var n int
			if e := r.QueryRow().Scan(&n); e != nil {
				o.Check(e)
			}
			sum += n
		}
		o.Add(sum)
		_, e := r.Exec()
		o.Check(e)
		var text string
		o.Check(r.QueryRow().Scan(&text))
		o.Add(text)
		o.Check(r.Close())
		b = &pgx.Batch{}
		b.Queue("SELECT 1")
		b.Queue("SELECT 1/$1::int", 0)
		b.Queue("SELECT 3")
		r = c.SendBatch(ctx, b)
		for i := 0; i < 3; i++ {
			var n int
			o.Check(r.QueryRow().Scan(&n))
		}
		o.Check(r.Close())
		o.Try(query(c, "SHOW work_mem"))
		d.Close(c)
	})
	harness.Test("copy", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_xcopy")
		exec(c, "CREATE TABLE t_xcopy (id int PRIMARY KEY, v text, b bytea)")
		var rows [][]interface{}
		for i := 0; i < 5000; i++ {
			rows = append(rows, []interface{}{int32(i), fmt.Sprint("row ", i), []byte{0, byte(i)}})
		}
		n, e := c.CopyFrom(ctx, pgx.Identifier{"t_xcopy"}, []string{"id", "v", "b"}, pgx.CopyFromRows(rows))
		o.Try(fmt.Sprint(n), e)
		n, e = c.CopyFrom(ctx, pgx.Identifier{"t_xcopy"}, []string{"id", "v", "b"}, pgx.CopyFromRows(rows[:1]))
		o.Try(fmt.Sprint(n), e)
		var w bytes.Buffer
		tag, e := c.PgConn().CopyTo(ctx, &w, "COPY (SELECT id, v FROM t_xcopy ORDER BY id) TO STDOUT")
		o.Try(fmt.Sprint(string(tag), w.Len()), e)
		tag, e = c.PgConn().CopyFrom(ctx, strings.NewReader("no number\n"), "COPY t_xcopy (id) FROM STDIN")
		o.Try(string(tag), e)
		o.Try(query(c, "SELECT count(*) FROM t_xcopy"))
		exec(c, "DROP TABLE t_xcopy")
		d.Close(c)
	})
	harness.Test("listen and notify", true, func(o *harness.Out) {
		a, b := open(o, nil), open(o, nil)
		exec(a, "LISTEN xchan")
		exec(b, "NOTIFY xchan, 'one'")
		exec(b, "SELECT pg_notify('xchan', $1)", "zwei ü")
		for i := 0; i < 2; i++ {
			limit, done := context.WithTimeout(ctx, 15*time.Second)
			n, e := a.WaitForNotification(limit)
			done()
			if e != nil {
				o.Add("no notification")
				break
			}
			o.Add(n.Channel + " " + n.Payload)
		}
		d.Close(a)
		d.Close(b)
	})
	harness.Test("backend pid", false, func(o *harness.Out) {
		c := open(o, nil)
		o.Try(query(c, fmt.Sprint("SELECT pg_backend_pid() = ", c.PgConn().PID())))
		d.Close(c)
	})
	harness.Test("cancel request", false, func(o *harness.Out) {
		c := open(o, nil)
		for i := 0; i < 3; i++ {
			timer := time.AfterFunc(300*time.Millisecond, func() { c.PgConn().CancelRequest(ctx) })
			o.Try(query(c, "SELECT pg_sleep(30)"))
			timer.Stop()
			o.Try(query(c, "SELECT 'on'"))
		}
		d.Close(c)
	})
	harness.Test("context that ends kills the connection", false, func(o *harness.Out) {
		c := open(o, nil)
		limit, done := context.WithTimeout(ctx, 300*time.Millisecond)
		_, e := c.Exec(limit, "SELECT pg_sleep(30)")
		done()
		o.Add(e != nil, c.IsClosed())
		c = open(o, nil)
		o.Try(query(c, "SELECT 'on'"))
		d.Close(c)
	})
	harness.Test("several statements in one query", false, func(o *harness.Out) {
		c := open(o, nil)
		for _, sql := range []string{"SELECT 1; SELECT 2; SET work_mem = '5MB'", "SELECT 1; SELECT 1/0; SELECT 3", "SHOW work_mem", ""} {
			results, e := c.PgConn().Exec(ctx, sql).ReadAll()
			for _, r := range results {
				o.Add(fmt.Sprintf("%s %q", r.CommandTag, r.Rows))
			}
			o.Check(e)
		}
		o.Try(exec(c, "SELECT 1; SELECT 2"))
		o.Try(query(c, "SELECT 1; SELECT $1::int", 1))
		d.Close(c)
	})
	harness.Test("notices", false, func(o *harness.Out) {
		k, _ := config(nil)
		k.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { o.Add(n.Severity + n.Code + n.Message) }
		c, e := pgx.ConnectConfig(ctx, k)
		if e != nil {
			o.Check(e)
			return
		}
		exec(c, "DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")
		exec(c, "DROP TABLE IF EXISTS no_such_table")
		d.Close(c)
	})
	harness.Test("variables in the startup message", false, func(o *harness.Out) {
		c := open(o, map[string]string{"search_path": "pg_catalog", "statement_timeout": "31000", "timezone": "Asia/Tokyo",
			"application_name": "pgx case", "default_transaction_isolation": "serializable", "my.own": "x"})
		for _, name := range []string{"search_path", "statement_timeout", "TimeZone", "application_name", "default_transaction_isolation", "my.own"} {
			o.Try(query(c, "SHOW "+name))
			o.Add(c.PgConn().ParameterStatus(name))
		}
		d.Close(c)
		_, e := d.Open(map[string]string{"no_such_variable": "1"})
		o.Add(e != nil && strings.Contains(e.Error(), "no_such_variable"))
	})
	harness.Test("large value both ways", false, func(o *harness.Out) {
		c := open(o, nil)
		text, data := strings.Repeat("0123456789abcdef", 5*65536), bytes.Repeat([]byte{7}, 5000000)
		var n int
		var t string
		var b []byte
		o.Check(c.QueryRow(ctx, "SELECT length($1::text), $1::text, $2::bytea", text, data).Scan(&n, &t, &b))
		o.Add(n, t == text, bytes.Equal(b, data))
		d.Close(c)
	})
	harness.Test("pool of the driver", true, func(o *harness.Out) {
		k, e := pgxpool.ParseConfig("pool_max_conns=4")
		if e != nil {
			o.Check(e)
			return
		}
		k.ConnConfig.Host = os.Getenv("PGHOST")
		p, e := pgxpool.ConnectConfig(ctx, k)
		if e != nil {
			o.Check(e)
			return
		}
		sums := make(chan int)
		for w := 0; w < 8; w++ {
			go func(w int) {
				sum := 0
				for i := 0; i < 50; i++ {
					var n int
					if p.QueryRow(ctx, "SELECT $1::int + $2::int", w, i).Scan(&n) == nil {
						sum += n
					}
				}
				sums <- sum
			}(w)
		}
		sum := 0
		for w := 0; w < 8; w++ {
			sum += <-sums
		}
		o.Add(sum)
		p.Close()
	})
	harness.Test("large object", false, func(o *harness.Out) {
		c := open(o, nil)
		tx, e := c.Begin(ctx)
		o.Check(e)
		lo := tx.LargeObjects()
		oid, e := lo.Create(ctx, 0)
		o.Check(e)
		f, e := lo.Open(ctx, oid, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
		o.Check(e)
		n, e := f.Write(bytes.Repeat([]byte{1}, 100000))
		o.Try(fmt.Sprint(n), e)
		o.Check(f.Close())
		o.Check(lo.Unlink(ctx, oid))
		o.Check(tx.Commit(ctx))
		d.Close(c)
	})
	// As programs do it: each text is a statement of its own, which the driver prepares and drops.
	for _, auto := range []bool{true, false} {
		auto := auto
		harness.Test("like a program: new statements, autocommit "+map[bool]string{true: "on", false: "off"}[auto], false, func(o *harness.Out) {
			for _, simple := range []bool{false, true} {
				k, e := config(nil)
				if e != nil {
					o.Check(e)
					return
				}
				k.PreferSimpleProtocol = simple
				k.BuildStatementCache = func(c *pgconn.PgConn) stmtcache.Cache { return stmtcache.New(c, stmtcache.ModePrepare, 4) }
				c, e := pgx.ConnectConfig(ctx, k)
				if e != nil {
					o.Check(e)
					return
				}
				exec(c, "DROP TABLE IF EXISTS t_program")
				exec(c, "CREATE TABLE t_program (id int PRIMARY KEY, v text)")
				for i := 0; i < 30; i += 2 {
					work := func(q interface {
						Exec(context.Context, string, ...interface{}) (pgconn.CommandTag, error)
						QueryRow(context.Context, string, ...interface{}) pgx.Row
					}) error {
						for n := i; n < i+2; n++ {
							if _, e := q.Exec(ctx, fmt.Sprintf("INSERT INTO t_program VALUES ($1, 'of %d' || $2::text)", n%7), n, "x"); e != nil {
								return e
							}
							var v string
							e := q.QueryRow(ctx, fmt.Sprintf("SELECT v || '%d' FROM t_program WHERE id = $1", n), n).Scan(&v)
							o.Try(v, e)
						}
						if i%10 == 6 {
							_, e := q.Exec(ctx, "INSERT INTO t_program VALUES ($1, 'again')", i)
							o.Check(e)
							_, e = q.Exec(ctx, "SELECT 'on or refused'")
							o.Check(e)
						}
						if !auto && i%8 == 4 {
							return errors.New("the program fails")
						}
						return nil
					}
					if auto {
						o.Check(work(c))
					} else {
						o.Check(c.BeginFunc(ctx, func(tx pgx.Tx) error { return work(tx) }))
					}
				}
				o.Try(query(c, "SELECT count(*), sum(id) FROM t_program"))
				exec(c, "DROP TABLE t_program")
				d.Close(c)
			}
		})
	}
	harness.Test("a copy that fails while its rows are sent", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_fails")
		exec(c, "CREATE TABLE t_fails (id int PRIMARY KEY, v text)")
		for _, behind := range []int{1, 50, 5000, 60000} {
			rows := [][]interface{}{{1, "x"}, {1, "x"}}
			for i := 2; i < behind+2; i++ {
				rows = append(rows, []interface{}{i, "behind it, and of some length"})
			}
			_, e := c.CopyFrom(ctx, pgx.Identifier{"t_fails"}, []string{"id", "v"}, pgx.CopyFromRows(rows))
			o.Check(e)
			o.Try(query(c, "SELECT 'on', count(*) FROM t_fails"))
			o.Check(c.BeginFunc(ctx, func(tx pgx.Tx) error {
				_, e := tx.CopyFrom(ctx, pgx.Identifier{"t_fails"}, []string{"id", "v"}, pgx.CopyFromRows(rows))
				o.Check(e)
				_, e = tx.Exec(ctx, "SELECT 'refused'")
				return e
			}))
			o.Try(query(c, "SELECT 'and on', count(*) FROM t_fails"))
		}
		exec(c, "DROP TABLE t_fails")
		d.Close(c)
	})
	harness.Test("a client that leaves in the middle", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_leaves")
		exec(c, "CREATE TABLE t_leaves (id int PRIMARY KEY)")
		d.Close(c)
		left := func() {
			c := open(o, nil)
			o.Check(c.BeginFunc(ctx, func(tx pgx.Tx) error {
				var n int
				if _, e := tx.Exec(ctx, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE"); e != nil {
					return e
				}
				e := tx.QueryRow(ctx, "SELECT count(*) FROM t_leaves").Scan(&n)
				o.Add(n)
				return e
			}))
			d.Close(c)
		}
		for _, silent := range []bool{true, false} {
			leave := func(c *pgx.Conn) {
				if silent {
					c.PgConn().Conn().Close()
				}
				d.Close(c)
			}
			c := open(o, nil)
			exec(c, "BEGIN")
			exec(c, "INSERT INTO t_leaves VALUES ($1), ($2)", 1, 2)
			leave(c)
			left()
			// Before the Sync of a batch, of which the server has done a part.
			c = open(o, nil)
			var wire []byte
			for i := 0; i < 3; i++ {
				wire = (&pgproto3.Parse{Query: fmt.Sprintf("INSERT INTO t_leaves VALUES (%d)", i)}).Encode(wire)
				wire = (&pgproto3.Bind{}).Encode(wire)
				wire = (&pgproto3.Execute{}).Encode(wire)
			}
			wire = (&pgproto3.Flush{}).Encode(wire)
			o.Check(c.PgConn().SendBytes(ctx, wire))
			for done := 0; done < 3; {
				m, e := c.PgConn().ReceiveMessage(ctx)
				if e != nil {
					o.Check(e)
					break
				}
				if complete, ok := m.(*pgproto3.CommandComplete); ok {
					o.Add(string(complete.CommandTag))
					done++
				}
			}
			if !silent {
				o.Check(c.PgConn().SendBytes(ctx, (&pgproto3.Terminate{}).Encode(nil)))
			}
			c.PgConn().Conn().Close()
			d.Close(c)
			left()
			c = open(o, nil)
			_, e := c.PgConn().CopyFrom(ctx, io.MultiReader(strings.NewReader(strings.Repeat("1000\n", 1)), &leaver{func() { c.PgConn().Conn().Close() }}), "COPY t_leaves FROM STDIN")
			o.Add(e != nil)
			d.Close(c)
			left()
		}
		c = open(o, nil)
		exec(c, "DROP TABLE t_leaves")
		d.Close(c)
	})
	harness.Main(d)
}
