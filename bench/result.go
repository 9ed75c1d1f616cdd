package main

// What comes out: medians, ratios, budgets, and two ways to write them.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// budget is what Mailreeve may use. Exactly one way of saying it is used.
type budget struct {
	times float64  // as much as this times the best of
	of    []string // these proxies
	most  float64  // no more than this
	none  bool     // nothing at all
}

// Result is what one run has measured. Its JSON form is for other programs.
type Result struct {
	Made     string    `json:"made"`
	Machine  string    `json:"machine"`
	Command  string    `json:"command"`
	Rounds   int       `json:"rounds"`
	Proxies  []Peer    `json:"proxies"`
	Rows     []Row     `json:"rows"`
	Budgets  []Outcome `json:"budgets,omitempty"`
	Skipped  []string  `json:"skipped,omitempty"`
	Failures []string  `json:"failures,omitempty"`
}

// Peer is a proxy that took part.
type Peer struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Version string `json:"version"`
}

// Row is one metric of one work, with every proxy's values.
type Row struct {
	Work   string             `json:"work"`
	Metric string             `json:"metric"`
	Title  string             `json:"title"`
	Unit   string             `json:"unit"`
	More   bool               `json:"more_is_better,omitempty"`
	Cells  map[string]*Values `json:"values"` // by proxy

	budget *budget
}

// Values are one proxy's, a round each.
type Values struct {
	Rounds []*float64 `json:"rounds"` // null where a round failed
	Median float64    `json:"median"`
	// Ratio is Mailreeve's to this one's: the median of the rounds' ratios, since a round's
	// values were taken within moments, and the machine drifts.
	Ratio *float64 `json:"mailreeve_to_this,omitempty"`
}

// Outcome is whether a budget was met.
type Outcome struct {
	Title    string   `json:"title"`
	Budget   string   `json:"budget"`
	Measured string   `json:"measured"`
	Met      *bool    `json:"met"` // null where a proxy that it speaks of is missing
	Share    *float64 `json:"of_budget,omitempty"`
}

// newRows lays out the table for these works.
func newRows(works []*work, n scale) []Row {
	var rows []Row
	for _, w := range works {
		for _, m := range w.metrics {
			rows = append(rows, Row{Work: w.name, Metric: m.name, Title: n.in(m.title), Unit: m.unit, More: m.more,
				Cells: map[string]*Values{}, budget: m.budget})
		}
	}
	return rows
}

// put enters what one round has measured.
func (r *Result) put(work, proxy string, round int, v values) {
	for i := range r.Rows {
		row := &r.Rows[i]
		value, there := v[row.Metric]
		if row.Work != work || !there {
			continue
		}
		cell := row.Cells[proxy]
		if cell == nil {
			cell = &Values{Rounds: make([]*float64, r.Rounds)}
			row.Cells[proxy] = cell
		}
		cell.Rounds[round] = &value
	}
}

// conclude works out medians, ratios and budgets.
func (r *Result) conclude() {
	r.Budgets = nil
	for _, row := range r.Rows {
		us := row.Cells[ours]
		for name, cell := range row.Cells {
			cell.Median = median(present(cell.Rounds))
			if name != ours && us != nil {
				cell.Ratio = ratio(us.Rounds, cell.Rounds)
			}
		}
		if row.budget != nil && us != nil {
			r.Budgets = append(r.Budgets, row.judge())
		}
	}
}

// judge compares Mailreeve's value with the row's budget.
func (row *Row) judge() Outcome {
	b, us := row.budget, row.Cells[ours]
	o := Outcome{Title: row.Title, Measured: number(us.Median) + " " + row.Unit}
	verdict := func(met bool) { o.Met = &met }
	switch {
	case b.none:
		o.Budget = "none"
		o.Measured = number(slices.Max(present(us.Rounds))) + " " + row.Unit // a median would hide one bad round
		verdict(slices.Max(present(us.Rounds)) == 0)
	case b.most > 0:
		o.Budget = number(b.most) + " " + row.Unit
		share := us.Median / b.most
		o.Share = &share
		verdict(share <= 1)
	default:
		var names []string
		best := math.Inf(-1) // the highest ratio is that to the best of them
		for _, name := range b.of {
			names = append(names, title(name))
			if cell := row.Cells[name]; cell == nil || cell.Ratio == nil {
				best = math.NaN()
			} else {
				best = max(best, *cell.Ratio)
			}
		}
		o.Budget = fmt.Sprintf("%s x %s", number(b.times), strings.Join(names, " or "))
		if len(names) > 1 {
			o.Budget += ", the better"
		}
		if math.IsNaN(best) {
			break
		}
		o.Measured += fmt.Sprintf(", %.2f x", best)
		share := best / b.times
		o.Share = &share
		verdict(share <= 1)
	}
	return o
}

func title(name string) string {
	for _, p := range peers {
		if p.name == name {
			return p.title
		}
	}
	return name
}

func present(rounds []*float64) (all []float64) {
	for _, v := range rounds {
		if v != nil {
			all = append(all, *v)
		}
	}
	return all
}

// median is the middle one of some values, or the mean of the middle two.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// ratio is the median of the ratios of the rounds that both have, or nil where there is none.
func ratio(a, b []*float64) *float64 {
	var all []float64
	for i := range a {
		if a[i] != nil && b[i] != nil && *b[i] != 0 {
			all = append(all, *a[i]/(*b[i]))
		}
	}
	if len(all) == 0 {
		return nil
	}
	m := median(all)
	return &m
}

// number writes three digits, which is more than can be trusted, and whole numbers as such.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case v == math.Trunc(v) || a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// markdown is the result for people.
func (r *Result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measurements\n\nMade %s by `%s`, on %s. Medians of %s.\n\n", r.Made, r.Command, r.Machine, plural(r.Rounds, "round"))
	for _, p := range r.Proxies {
		fmt.Fprintf(&b, "- %s: %s\n", p.Title, cmp.Or(p.Version, "version unknown"))
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "- left out: %s\n", s)
	}
	if len(r.Failures) > 0 {
		b.WriteString("\n**What failed:**\n\n")
		for _, f := range r.Failures {
			fmt.Fprintf(&b, "- %s\n", strings.Join(strings.Fields(f), " "))
		}
	}

	others := slices.DeleteFunc(slices.Clone(r.Proxies), func(p Peer) bool { return p.Name == ours })
	head := []string{"", "unit"}
	for _, p := range r.Proxies {
		head = append(head, p.Title)
	}
	if len(others) < len(r.Proxies) {
		for _, p := range others {
			head = append(head, "to "+p.Name)
		}
	}
	b.WriteString("\n## Medians, and Mailreeve's ratio to each\n\nThe ratio is the median of the rounds' ratios. Less is better, except where the row says more.\n\n")
	table := [][]string{head}
	for _, row := range r.Rows {
		name := row.Title
		if row.More {
			name += " (more)"
		}
		line := []string{name, row.Unit}
		for _, p := range r.Proxies {
			cell := "-"
			if v := row.Cells[p.Name]; v != nil {
				cell = number(v.Median)
			}
			line = append(line, cell)
		}
		if len(others) < len(r.Proxies) {
			for _, p := range others {
				cell := "-"
				if v := row.Cells[p.Name]; v != nil && v.Ratio != nil {
					cell = fmt.Sprintf("%.2f", *v.Ratio)
				}
				line = append(line, cell)
			}
		}
		table = append(table, line)
	}
	writeTable(&b, table)

	if len(r.Budgets) > 0 {
		b.WriteString("\n## Budgets\n\n")
		table := [][]string{{"", "budget", "measured", "of the budget", ""}}
		for _, o := range r.Budgets {
			share, met := "-", "not judged: a proxy is missing"
			if o.Share != nil {
				share = fmt.Sprintf("%.0f %%", 100**o.Share)
			}
			if o.Met != nil {
				met = map[bool]string{true: "met", false: "**not met**"}[*o.Met]
			}
			table = append(table, []string{o.Title, o.Budget, o.Measured, share, met})
		}
		writeTable(&b, table)
	}

	if r.Rounds > 1 {
		b.WriteString("\n## Each round\n\n")
		head := []string{"", "unit"}
		for _, p := range r.Proxies {
			head = append(head, p.Title)
		}
		table := [][]string{head}
		for _, row := range r.Rows {
			line := []string{row.Title, row.Unit}
			for _, p := range r.Proxies {
				var each []string
				if v := row.Cells[p.Name]; v != nil {
					for _, x := range v.Rounds {
						if x == nil {
							each = append(each, "failed")
						} else {
							each = append(each, number(*x))
						}
					}
				}
				line = append(line, cmp.Or(strings.Join(each, ", "), "-"))
			}
			table = append(table, line)
		}
		writeTable(&b, table)
	}
	return b.String()
}

// thousands writes a number as in a sentence.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// writeTable writes a table of Markdown that can be read as plain text, too.
func writeTable(b *strings.Builder, lines [][]string) {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len(cell), 3)
		}
	}
	for n, line := range lines {
		for i, cell := range line {
			if i > 1 {
				fmt.Fprintf(b, "| %*s ", widths[i], cell)
			} else {
				fmt.Fprintf(b, "| %-*s ", widths[i], cell)
			}
		}
		b.WriteString("|\n")
		if n == 0 {
			for i, w := range widths {
				if i > 1 {
					b.WriteString("|" + strings.Repeat("-", w+1) + ":")
				} else {
					b.WriteString("|" + strings.Repeat("-", w+2))
				}
			}
			b.WriteString("|\n")
		}
	}
}

func (r *Result) json() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}
