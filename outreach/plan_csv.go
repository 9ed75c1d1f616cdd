package outreach

// The plan as a table for a spreadsheet: for who calls, or writes letters.

import (
	"io"
	"time"
)

// PlanFormat is the number of the plan's formats, CSV and JSON. New columns and fields come
// behind the others.
const PlanFormat = "plan-1"

var planColumns = []column{
	{"format", "Format"}, {"account", "Konto"}, {"brand", "Marke"}, {"step", "Stufe"}, {"reason", "Grund"}, {"sentence", "Grund in Worten (englisch)"},
	{"on", "am"}, {"refused from", "abgewiesen ab"}, {"letter", "Brief oder Anruf"}, {"case", "Vorgang"},
}

// Sheet writes a row for every item, in "de" or "en".
func (p *Plan) Sheet(w io.Writer, lang string, marks Marks, zone *time.Location) error {
	s := newSheet(w, lang, planColumns)
	for i := range p.Items {
		n := &p.Items[i]
		step, on, date, letter := "", "", "", word(lang, "no", "nein")
		if n.writable() || n.Reason == ReasonMost || n.Reason == ReasonLapsed {
			step = StepName(n.Step)
		}
		if n.On != 0 {
			on = n.On.String()
		}
		if !n.T.IsZero() {
			date = n.T.In(zone).Format("2006-01-02 15:04")
		}
		if n.Letter {
			letter = word(lang, "yes", "ja")
		}
		if err := s.row(PlanFormat, n.Account, n.Brand, step, string(n.Reason), n.Sentence, on, date, letter, marks.Case(n.Account)); err != nil {
			return err
		}
	}
	return s.flush()
}
