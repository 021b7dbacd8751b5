package schema

import "errors"

// SQLSTATEs that decisions are made on.
const (
	insufficientPrivilege = "42501"
	undefinedTable        = "42P01"
	undefinedSchema       = "3F000"
	undefinedFunction     = "42883"
	undefinedColumn       = "42703"
	undefinedObject       = "42704"
	duplicateTable        = "42P07"
	duplicateObject       = "42710"
	duplicateFunction     = "42723"
	duplicateSchema       = "42P06"
	syntaxError           = "42601"
	featureNotSupported   = "0A000"
)

// joinErr adds the error of cleaning up to the one that matters.
func joinErr(err, cleaning error) error {
	if cleaning == nil {
		return err
	}
	return errors.Join(err, cleaning)
}
