package outreach

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var marks = Marks{Secret: []byte("a secret of thirty-two bytes, no"), Campaign: "tls-2027"}

// What has been told to customers must be found again by every later version.
func TestMarksStay(t *testing.T) {
	k := Key{"kunde@example.de", 0, -28}
	for got, want := range map[string]string{
		marks.Case(k.Account):                    "MR-SGW9-3AQA",
		marks.MessageID(k, "bounces.example.de"): "mr-sgw9-3aqa.t-28.844knd1adey58jpm@bounces.example.de",
		marks.Token(k):                           "A0BA1TJCHE4HEYADN3KG7R06",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestMarksDiffer(t *testing.T) {
	had := map[string]Key{}
	for _, k := range []Key{{"a@example.de", 0, -28}, {"a@example.de", 0, -14}, {"a@example.de", 1, -28}, {"b@example.de", 0, -28}, {"a@example.de1", 0, -28}} {
		for _, m := range []Marks{marks, {marks.Secret, "other"}, {[]byte("another"), marks.Campaign}} {
			for _, mark := range []string{m.Token(k), m.MessageID(k, "example.de")} {
				if other, has := had[mark]; has {
					t.Errorf("%v and %v have the same %s", k, other, mark)
				}
				had[mark] = k
			}
		}
	}
}

func TestStepName(t *testing.T) {
	for step, want := range map[int]string{-112: "T-112", 0: "T", 3: "T+3", Undated: "N", Undated + 28: "N+28"} {
		if got := StepName(step); got != want {
			t.Errorf("%d is %s, want %s", step, got, want)
		}
	}
}

func TestParseCase(t *testing.T) {
	for text, want := range map[string]string{
		"MR-7K2M-90QD": "MR-7K2M-90QD", "mr7k2m9oqd": "MR-7K2M-90QD", " mr – 7k2m 9Oqd ": "MR-7K2M-90QD", "7K2M-90QD": "MR-7K2M-90QD",
		"MR-1I1L-0o0O": "MR-1111-0000", "MRMR-MRMR": "MR-MRMR-MRMR",
		"": "", "MR-7K2M-90Q": "", "MR-7K2M-90QDX": "", "XX-7K2M-90QD": "", "MR-7U2M-90QD": "", "kunde@example.de": "", strings.Repeat("-", 100): "",
	} {
		if got, ok := ParseCase(text); got != want || ok != (want != "") {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// A token survives whatever a server or a person does to the letters of an address.
func TestTokensComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := Key{rapid.StringMatching(`[a-z]{1,9}@[a-z]{1,9}\.de`).Draw(t, "account"), rapid.IntRange(0, 3).Draw(t, "series"), rapid.IntRange(-365, 60).Draw(t, "step")}
		token := marks.Token(k)
		address := []rune(ReturnPath("no+tices@bounces.example.de", token))
		for i, r := range address {
			if rapid.Bool().Draw(t, "upper") {
				address[i] = []rune(strings.ToUpper(string(r)))[0]
			}
		}
		text := strings.NewReplacer("0", rapid.SampledFrom([]string{"0", "o", "O"}).Draw(t, "0"), "1", rapid.SampledFrom([]string{"1", "i", "L"}).Draw(t, "1")).Replace(string(address))
		if got, ok := ParseToken(text); !ok || got != token {
			t.Fatalf("%s gave %q %v, want %s", text, got, ok, token)
		}
		number := marks.Case(k.Account)
		if got, ok := ParseCase(strings.ToLower(number)); !ok || got != number {
			t.Fatalf("%s became %q", number, got)
		}
	})
}

func TestParseTokenOfOthers(t *testing.T) {
	for _, address := range []string{"", "notices@example.de", "notices+@example.de", "notices+spam@example.de", "a+b+c", "notices+" + strings.Repeat("U", tokenLen) + "@example.de"} {
		if token, ok := ParseToken(address); ok {
			t.Errorf("%q has the token %q", address, token)
		}
	}
}
