// lib/pq under database/sql.
//
// SPDX-License-Identifier: Apache-2.0
package main

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"drivers/harness"

	"github.com/lib/pq"
)

type pqDriver struct{}

var d = pqDriver{}

// A database of one connection, kept.
type conn struct {
	db *sql.DB
	c  *sql.Conn
	// Statements prepared once for each text.
	prepared map[string]*sql.Stmt
}

func quote(v string) string {
	return "'" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(v) + "'"
}

func dsn(options map[string]string) string {
	text := fmt.Sprintf("host=%s port=%s dbname=%s user=%s password=%s sslmode=verify-full sslrootcert=%s connect_timeout=20",
		os.Getenv("PGHOST"), os.Getenv("PGPORT"), os.Getenv("PGDATABASE"), os.Getenv("PGUSER"), os.Getenv("PGPASSWORD"), os.Getenv("PGSSLROOTCERT"))
	for k, v := range options {
		text += " " + k + "=" + quote(v)
	}
	return text
}

func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 40*time.Second)
}

func (pqDriver) Open(options map[string]string) (interface{}, error) {
	db, e := sql.Open("postgres", dsn(options))
	if e != nil {
		return nil, e
	}
	ctx, done := background()
	defer done()
	c, e := db.Conn(ctx)
	if e != nil {
		db.Close()
		return nil, e
	}
	return &conn{db, c, map[string]*sql.Stmt{}}, nil
}

func open(o *harness.Out, options map[string]string) *conn {
	c, e := d.Open(options)
	if e != nil {
		o.Check(e)
		return nil
	}
	return c.(*conn)
}

func collect(rows *sql.Rows, e error) (string, error) {
	if e != nil {
		return "", e
	}
	defer rows.Close()
	out := ""
	for {
		types, e := rows.ColumnTypes()
		if e != nil {
			return "", e
		}
		out += "("
		for i, t := range types {
			if i > 0 {
				out += ","
			}
			out += t.Name() + ":" + t.DatabaseTypeName()
		}
		out += ")"
		for rows.Next() {
			values := make([]interface{}, len(types))
			into := make([]interface{}, len(types))
			for i := range values {
				into[i] = &values[i]
			}
			if e := rows.Scan(into...); e != nil {
				return "", e
			}
			out += harness.Row(values)
		}
		if e := rows.Err(); e != nil {
			return "", e
		}
		if !rows.NextResultSet() {
			return out, rows.Err()
		}
	}
}

func query(c *conn, sql string, args ...interface{}) (string, error) {
	ctx, done := background()
	defer done()
	return collect(c.c.QueryContext(ctx, sql, args...))
}

func (pqDriver) Run(c interface{}, sql string) (string, error) { return query(c.(*conn), sql) }

func (pqDriver) Arg(a interface{}, sql string, values []interface{}) (string, error) {
	c := a.(*conn)
	ctx, done := background()
	defer done()
	s := c.prepared[sql]
	if s == nil {
		var e error
		if s, e = c.c.PrepareContext(ctx, sql); e != nil {
			return "", e
		}
		c.prepared[sql] = s
	}
	return collect(s.QueryContext(ctx, values...))
}

func (pqDriver) Close(a interface{}) error {
	c := a.(*conn)
	c.c.Close()
	return c.db.Close()
}

func (pqDriver) Error(e error) string {
	var p *pq.Error
	if errors.As(e, &p) {
		return fmt.Sprintf("!%s %s %s %s %s at %s", p.Severity, p.Code, p.Message, p.Detail, p.Hint, p.Position)
	}
	return "!" + e.Error()
}

func exec(c *conn, sql string, args ...interface{}) (string, error) {
	ctx, done := background()
	defer done()
	r, e := c.c.ExecContext(ctx, sql, args...)
	if e != nil {
		return "", e
	}
	n, e := r.RowsAffected()
	return fmt.Sprint(n), e
}

// Keeps the connection below TLS, to take it away.
type keepingDialer struct{ conn net.Conn }

func (k *keepingDialer) Dial(network, address string) (c net.Conn, e error) {
	k.conn, e = net.Dial(network, address)
	return k.conn, e
}

func (k *keepingDialer) DialTimeout(network, address string, timeout time.Duration) (c net.Conn, e error) {
	k.conn, e = net.DialTimeout(network, address, timeout)
	return k.conn, e
}

func main() {
	ctx := context.Background()
	harness.Test("types round trip", false, func(o *harness.Out) {
		c := open(o, nil)
		o.Try(query(c, "SELECT $1::text, $2::int8, $3::bytea, $4::bool, $5::float8, $6::text, $7::int[], $8::text[], $9::timestamptz",
			"it's ü 世界😀", int64(1)<<60, []byte{0, 1, 255}, true, 1.25, nil, pq.Array([]int64{1, 2}), pq.Array([]string{"a", "b,c", "d\"e"}),
			time.Date(2024, 2, 29, 12, 34, 56, 789000000, time.UTC)))
		o.Try(query(c, "SELECT $1::int", "not a number"))
		d.Close(c)
	})
	harness.Test("binary parameters", false, func(o *harness.Out) {
		c := open(o, map[string]string{"binary_parameters": "yes"})
		o.Try(query(c, "SELECT $1::text, $2::bytea, $3::int", "x", []byte{0, 255}, 7))
		o.Try(query(c, "SELECT 1/$1::int", 0))
		o.Try(query(c, "SELECT 'on'"))
		d.Close(c)
	})
	harness.Test("prepared statements in parallel over a pool", true, func(o *harness.Out) {
		db, e := sql.Open("postgres", dsn(nil))
		if e != nil {
			o.Check(e)
			return
		}
		db.SetMaxOpenConns(4)
		s, e := db.Prepare("SELECT $1::int * 2")
		o.Check(e)
		if e != nil {
			return
		}
		var wait sync.WaitGroup
		var lock sync.Mutex
		sum := 0
		for w := 0; w < 8; w++ {
			wait.Add(1)
			go func(w int) {
				defer wait.Done()
				for i := 0; i < 50; i++ {
					var n int
					if e := s.QueryRow(i).Scan(&n); e == nil {
						lock.Lock()
						sum += n
						lock.Unlock()
					}
				}
			}(w)
		}
		wait.Wait()
		o.Add(sum)
		s.Close()
		db.Close()
	})
	harness.Test("300 prepared statements", false, func(o *harness.Out) {
		c := open(o, nil)
		var all []*sql.Stmt
		sum := 0
		for i := 0; i < 300; i++ {
			s, e := c.c.PrepareContext(ctx, fmt.Sprintf("SELECT %d + $1::int", i))
			if e != nil {
				o.Check(e)
				return
			}
			all = append(all, s)
		}
		for round := 0; round < 2; round++ {
			for _, s := range all {
				var n int
				if e := s.QueryRow(1).Scan(&n); e != nil {
					o.Check(e)
				}
				sum += n
			}
		}
		for _, s := range all {
			s.Close()
		}
		o.Add(sum)
		d.Close(c)
	})
	harness.Test("transactions of the driver", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_libpq")
		exec(c, "CREATE TABLE t_libpq (id int PRIMARY KEY)")
		tx, e := c.c.BeginTx(ctx, nil)
		o.Check(e)
		_, e = tx.Exec("INSERT INTO t_libpq VALUES ($1)", 1)
		o.Check(e)
		_, e = tx.Exec("INSERT INTO t_libpq VALUES ($1)", 1)
		o.Check(e)
		_, e = tx.Exec("SELECT 1")
		o.Check(e)
		o.Check(tx.Commit())
		o.Try(query(c, "SELECT count(*) FROM t_libpq"))
		for _, level := range []sql.IsolationLevel{sql.LevelSerializable, sql.LevelRepeatableRead, sql.LevelReadCommitted} {
			tx, e = c.c.BeginTx(ctx, &sql.TxOptions{Isolation: level, ReadOnly: true})
			o.Check(e)
			o.Try(collect(tx.Query("SHOW transaction_isolation")))
			_, e = tx.Exec("INSERT INTO t_libpq VALUES (1)")
			o.Check(e)
			o.Check(tx.Rollback())
		}
		exec(c, "DROP TABLE t_libpq")
		d.Close(c)
	})
	harness.Test("copy", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_lcopy")
		exec(c, "CREATE TABLE t_lcopy (id int PRIMARY KEY, v text)")
		for _, last := range []int{4999, 0} {
			tx, e := c.c.BeginTx(ctx, nil)
			o.Check(e)
			s, e := tx.Prepare(pq.CopyIn("t_lcopy", "id", "v"))
			o.Check(e)
			if e != nil {
				return
			}
			for i := 0; i < 5000; i++ {
				id := i
				if i == 4999 {
					id = last
				}
				if _, e = s.Exec(id, fmt.Sprint("row ", i)); e != nil {
					break
				}
			}
			_, e = s.Exec()
			o.Check(e)
			s.Close()
			if e == nil {
				o.Check(tx.Commit())
			} else {
				o.Check(tx.Rollback())
			}
			o.Try(query(c, "SELECT count(*), sum(id) FROM t_lcopy"))
		}
		exec(c, "DROP TABLE t_lcopy")
		d.Close(c)
	})
	harness.Test("listener", true, func(o *harness.Out) {
		c := open(o, nil)
		ready := make(chan bool, 10)
		l := pq.NewListener(dsn(nil), time.Second, time.Minute, func(ev pq.ListenerEventType, _ error) { ready <- ev == pq.ListenerEventConnected })
		o.Check(l.Listen("gchan"))
		<-ready
		exec(c, "NOTIFY gchan, 'one'")
		exec(c, "SELECT pg_notify('gchan', 'zwei ü')")
		for i := 0; i < 2; i++ {
			select {
			case n := <-l.Notify:
				o.Add(n.Channel + " " + n.Extra)
			case <-time.After(15 * time.Second):
				o.Add("no notification")
			}
		}
		o.Check(l.Ping())
		o.Check(l.UnlistenAll())
		o.Check(l.Close())
		d.Close(c)
	})
	harness.Test("context that ends cancels", false, func(o *harness.Out) {
		c := open(o, nil)
		for i := 0; i < 2; i++ {
			limit, done := context.WithTimeout(ctx, 300*time.Millisecond)
			_, e := c.c.ExecContext(limit, "SELECT pg_sleep(30)")
			done()
			o.Check(e)
			text, e := query(c, "SELECT 'on'")
			o.Add(text != "" || errors.Is(e, driver.ErrBadConn))
		}
		d.Close(c)
		c = open(o, nil)
		o.Try(query(c, "SELECT 'on'"))
		d.Close(c)
	})
	harness.Test("several statements in one query", false, func(o *harness.Out) {
		c := open(o, nil)
		o.Try(query(c, "SELECT 1 AS a; SELECT 2 AS b, 'x' AS c"))
		o.Try(exec(c, "SET work_mem = '5MB'; SELECT 1/0"))
		o.Try(query(c, "SHOW work_mem"))
		o.Try(query(c, "SELECT 1; SELECT $1::int", 1))
		o.Try(query(c, ""))
		d.Close(c)
	})
	harness.Test("notices", false, func(o *harness.Out) {
		base, e := pq.NewConnector(dsn(nil))
		if e != nil {
			o.Check(e)
			return
		}
		db := sql.OpenDB(pq.ConnectorWithNoticeHandler(base, func(n *pq.Error) { o.Add(n.Severity + string(n.Code) + n.Message) }))
		_, e = db.Exec("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")
		o.Check(e)
		_, e = db.Exec("DROP TABLE IF EXISTS no_such_table")
		o.Check(e)
		db.Close()
	})
	harness.Test("variables in the startup message", false, func(o *harness.Out) {
		c := open(o, map[string]string{"search_path": "pg_catalog", "statement_timeout": "31000", "TimeZone": "Asia/Tokyo",
			"application_name": "pq case", "extra_float_digits": "3"})
		for _, name := range []string{"search_path", "statement_timeout", "TimeZone", "application_name", "extra_float_digits"} {
			o.Try(query(c, "SHOW "+name))
		}
		d.Close(c)
		_, e := d.Open(map[string]string{"no_such_variable": "1"})
		o.Check(e)
	})
	harness.Test("large value both ways", false, func(o *harness.Out) {
		c := open(o, nil)
		text, data := strings.Repeat("0123456789abcdef", 5*65536), bytes.Repeat([]byte{7}, 5000000)
		var n int
		var t string
		var b []byte
		o.Check(c.c.QueryRowContext(ctx, "SELECT length($1::text), $1::text, $2::bytea", text, data).Scan(&n, &t, &b))
		o.Add(n, t == text, bytes.Equal(b, data))
		d.Close(c)
	})
	harness.Test("rows that are left unread", false, func(o *harness.Out) {
		c := open(o, nil)
		rows, e := c.c.QueryContext(ctx, "SELECT g FROM generate_series(1, 50000) g")
		o.Check(e)
		if e == nil {
			rows.Next()
			o.Check(rows.Close())
		}
		o.Try(query(c, "SELECT 'on'"))
		d.Close(c)
	})
	harness.Test("error in a prepared statement, then again", false, func(o *harness.Out) {
		c := open(o, nil)
		s, e := c.c.PrepareContext(ctx, "SELECT 100 / $1::int")
		o.Check(e)
		for _, v := range []int{1, 0, 2, 0, 4} {
			o.Try(collect(s.Query(v)))
		}
		_, e = c.c.PrepareContext(ctx, "SELECT nothing")
		o.Check(e)
		o.Try(query(c, "SELECT 'on'"))
		s.Close()
		d.Close(c)
	})
	// As programs do it: a new statement for each execution, by database/sql.
	for _, auto := range []bool{true, false} {
		auto := auto
		harness.Test("like a program: new statements, autocommit "+map[bool]string{true: "on", false: "off"}[auto], false, func(o *harness.Out) {
			c := open(o, nil)
			exec(c, "DROP TABLE IF EXISTS t_program")
			exec(c, "CREATE TABLE t_program (id int PRIMARY KEY, v text)")
			for i := 0; i < 30; i += 2 {
				work := func(q interface {
					ExecContext(context.Context, string, ...interface{}) (sql.Result, error)
					PrepareContext(context.Context, string) (*sql.Stmt, error)
				}) error {
					for n := i; n < i+2; n++ {
						if _, e := q.ExecContext(ctx, "INSERT INTO t_program VALUES ($1, $2)", n, "x"); e != nil {
							return e
						}
						s, e := q.PrepareContext(ctx, "SELECT v, id FROM t_program WHERE id = $1")
						if e != nil {
							return e
						}
						o.Try(collect(s.Query(n)))
						s.Close()
					}
					if i%10 == 6 {
						_, e := q.ExecContext(ctx, "INSERT INTO t_program VALUES ($1, 'again')", i)
						o.Check(e)
						_, e = q.ExecContext(ctx, "SELECT 'on or refused'")
						o.Check(e)
					}
					if !auto && i%8 == 4 {
						return errors.New("the program fails")
					}
					return nil
				}
				if auto {
					o.Check(work(c.c))
					continue
				}
				tx, e := c.c.BeginTx(ctx, nil)
				if e != nil {
					o.Check(e)
					break
				}
				if e = work(tx); e != nil {
					o.Check(e)
					o.Check(tx.Rollback())
				} else {
					o.Check(tx.Commit())
				}
			}
			o.Try(query(c, "SELECT count(*), sum(id) FROM t_program"))
			exec(c, "DROP TABLE t_program")
			d.Close(c)
		})
	}
	harness.Test("a copy that fails while its rows are sent", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_fails")
		exec(c, "CREATE TABLE t_fails (id int PRIMARY KEY, v text)")
		for _, behind := range []int{1, 50, 5000, 60000} {
			tx, e := c.c.BeginTx(ctx, nil)
			o.Check(e)
			s, e := tx.Prepare(pq.CopyIn("t_fails", "id", "v"))
			o.Check(e)
			if e != nil {
				return
			}
			for i := -1; i < behind+2 && e == nil; i++ {
				id := i
				if id < 1 {
					id = 1
				}
				_, e = s.Exec(id, "a row of some length, so that there are many messages")
			}
			if e == nil {
				_, e = s.Exec()
			}
			o.Check(e)
			s.Close()
			o.Check(tx.Rollback())
			o.Try(query(c, "SELECT 'on', count(*) FROM t_fails"))
		}
		exec(c, "DROP TABLE t_fails")
		d.Close(c)
	})
	harness.Test("a client that leaves in the middle", false, func(o *harness.Out) {
		c := open(o, nil)
		exec(c, "DROP TABLE IF EXISTS t_leaves")
		exec(c, "CREATE TABLE t_leaves (id int PRIMARY KEY)")
		d.Close(c)
		for _, silent := range []bool{true, false} {
			for _, where := range []string{"transaction", "copy"} {
				dial := &keepingDialer{}
				connector, e := pq.NewConnector(dsn(nil))
				if e != nil {
					o.Check(e)
					return
				}
				connector.Dialer(dial)
				db := sql.OpenDB(connector)
				tx, e := db.Begin()
				o.Check(e)
				if e != nil {
					return
				}
				if where == "copy" {
					s, e := tx.Prepare(pq.CopyIn("t_leaves", "id"))
					o.Check(e)
					for i := 0; i < 30000; i++ {
						if _, e := s.Exec(i); e != nil {
							o.Check(e)
							break
						}
					}
				} else {
					_, e = tx.Exec("INSERT INTO t_leaves VALUES ($1), ($2)", 1, 2)
					o.Check(e)
				}
				if silent {
					dial.conn.Close()
				}
				if where == "transaction" && !silent {
					o.Check(tx.Rollback())
				}
				// (database/sql waits for a transaction that is open)
				if !silent && where == "copy" {
					dial.conn.Close()
				}
				tx.Rollback()
				db.Close()
				c := open(o, nil)
				look, e := c.c.BeginTx(ctx, nil)
				o.Check(e)
				_, e = look.Exec("LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE")
				o.Check(e)
				o.Try(collect(look.Query("SELECT count(*) FROM t_leaves")))
				o.Check(look.Rollback())
				d.Close(c)
			}
		}
		c = open(o, nil)
		exec(c, "DROP TABLE t_leaves")
		d.Close(c)
	})
	harness.Main(d)
}
