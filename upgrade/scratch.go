package upgrade

const schemaRejected = "schema-rejected"
