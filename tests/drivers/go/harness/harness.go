// Package harness does for the Go drivers what python/harness.py does for the others.
//
// SPDX-License-Identifier: Apache-2.0
package harness

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Driver is one driver; a connection is what its Open returned.
type Driver interface {
	Open(options map[string]string) (interface{}, error)
	Run(c interface{}, sql string) (string, error)
	Arg(c interface{}, sql string, values []interface{}) (string, error)
	Close(c interface{}) error
	Error(e error) string
}

type testCase struct {
	name string
	two  bool
	run  func(*Out)
}

var own []testCase

// Out gathers the steps of a case.
type Out struct {
	parts  []string
	driver Driver
}

// Add adds steps.
func (o *Out) Add(values ...interface{}) {
	for _, v := range values {
		o.parts = append(o.parts, Show(v))
	}
}

// Try adds a result, or the error.
func (o *Out) Try(text string, e error) {
	if e != nil {
		text = o.driver.Error(e)
	}
	o.Add(text)
}

// Check adds the error, or a plus.
func (o *Out) Check(e error) { o.Try("+", e) }

// Show is a value as text.
func Show(v interface{}) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case string:
		return v
	case []byte:
		return fmt.Sprintf("bytes:%x", v)
	}
	return fmt.Sprintf("%T:%v", v, v)
}

// Row is a row as text.
func Row(values []interface{}) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = Show(v)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

// Test registers a case of the driver's own.
func Test(name string, two bool, run func(*Out)) { own = append(own, testCase{name, two, run}) }

func cut(s, by string) (string, string) {
	if at := strings.Index(s, by); at >= 0 {
		return s[:at], s[at+len(by):]
	}
	return s, ""
}

func options(text string) map[string]string {
	all := map[string]string{}
	for _, pair := range strings.Split(text, ";;") {
		if pair = strings.TrimSpace(pair); pair != "" {
			k, v := cut(pair, "=")
			all[k] = v
		}
	}
	return all
}

func steps(d Driver, lines []string, o *Out) {
	open := map[string]interface{}{}
	for _, line := range lines {
		times := 1
		verb, rest := cut(line, " ")
		if verb == "times" {
			var n string
			n, rest = cut(rest, " ")
			times, _ = strconv.Atoi(n)
			verb, rest = cut(rest, " ")
		}
		name, text := cut(rest, " ")
		var values []interface{}
		if verb == "arg" {
			var tail string
			text, tail = cut(text, " <-")
			for _, v := range strings.Split(tail, "|") {
				values = append(values, strings.TrimSpace(v))
			}
		}
		last, count := "", 0
		tell := func() {
			if count > 1 {
				last += fmt.Sprintf(" x%d", count)
			}
			if count > 0 {
				o.Add(last)
			}
		}
		for i := 0; i < times; i++ {
			result := "(not connected)"
			var e error
			c, there := open[name]
			switch {
			case verb == "open":
				if c, e = d.Open(options(text)); e == nil {
					open[name] = c
					result = "+"
				}
			case !there:
			case verb == "close":
				e = d.Close(c)
				delete(open, name)
				result = "-"
			case verb == "run":
				result, e = d.Run(c, text)
			default:
				result, e = d.Arg(c, text, values)
			}
			if e != nil {
				result = d.Error(e)
			}
			if count > 0 && result == last {
				count++
				continue
			}
			tell()
			last, count = result, 1
		}
		tell()
	}
	for _, c := range open {
		d.Close(c)
	}
}

func listed(variable string) map[string]bool {
	set := map[string]bool{}
	for _, s := range strings.Split(os.Getenv(variable), "|") {
		if s != "" {
			set[s] = true
		}
	}
	return set
}

// Main runs what the environment asks for.
func Main(d Driver) {
	var all []testCase
	f, e := os.Open(os.Getenv("DRIVERS_CASES"))
	if e != nil {
		panic(e)
	}
	scanner := bufio.NewScanner(f)
	lines := map[string][]string{}
	at := ""
	for scanner.Scan() {
		line := scanner.Text()
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "case ") {
			words := strings.Fields(line)
			name := words[1]
			at = name
			all = append(all, testCase{name, len(words) > 2, func(o *Out) { steps(d, lines[name], o) }})
		} else {
			lines[at] = append(lines[at], line)
		}
	}
	only, skip, one := listed("DRIVERS_ONLY"), listed("DRIVERS_SKIP"), os.Getenv("DRIVERS_ONE") == "1"
	tidy := strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\r", "\\r", "\t", "\\t")
	for _, c := range append(all, own...) {
		if (len(only) > 0 && !only[c.name]) || skip[c.name] || (one && c.two) {
			continue
		}
		fmt.Printf("> %s\n", c.name)
		o := &Out{driver: d}
		c.run(o)
		fmt.Printf("%s\t%s\n", c.name, tidy.Replace(strings.Join(o.parts, " ; ")))
	}
}
