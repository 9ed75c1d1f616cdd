package logs

import "container/list"

// memory keeps what was put into it last, and lets go of what was put there first.
type memory[T any] struct {
	most  int
	byKey map[string]*list.Element
	age   list.List // of kept[T], the oldest first
}

type kept[T any] struct {
	key   string
	value T
}

func newMemory[T any](most int) *memory[T] {
	return &memory[T]{most: most, byKey: map[string]*list.Element{}}
}

// put keeps a value, in place of the one with the same key.
func (m *memory[T]) put(key string, value T) {
	m.take(key)
	if len(m.byKey) >= m.most {
		m.take(m.age.Front().Value.(kept[T]).key)
	}
	m.byKey[key] = m.age.PushBack(kept[T]{key, value})
}

// get returns a value, or the zero one.
func (m *memory[T]) get(key string) (value T) {
	if at := m.byKey[key]; at != nil {
		value = at.Value.(kept[T]).value
	}
	return value
}

// take returns a value and forgets it.
func (m *memory[T]) take(key string) T {
	value := m.get(key)
	if at := m.byKey[key]; at != nil {
		m.age.Remove(at)
		delete(m.byKey, key)
	}
	return value
}
