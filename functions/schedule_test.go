package functions_test

// scheduled are the functions that a clock starts. They serve no route, and whatever event comes is a start.
var scheduled = map[string]bool{"sweep": true, "deliver": true}
